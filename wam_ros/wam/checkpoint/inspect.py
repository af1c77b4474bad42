"""What is in a checkpoint folder: the facts a person wants before loading 45 GB. No torch."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from wam_ros.wam.checkpoint.errors import CheckpointError
from wam_ros.wam.checkpoint.experiment import Experiment, read_experiment
from wam_ros.wam.checkpoint.layout import PREFIXES
from wam_ros.wam.checkpoint.metadata import EmbodimentMetadata, read_metadata
from wam_ros.wam.checkpoint.survey import Survey, base_path, survey
from wam_ros.wam.embodiments import EMBODIMENTS

_LABELS = {"dit": "transformer", "text": "text encoder", "image": "image encoder", "vae": "VAE"}


@dataclass
class EmbodimentFindings:
    """One embodiment of the checkpoint."""

    tag: str
    statistics: bool
    state_dim: int | None = None
    action_dim: int | None = None
    step_period: float | None = None
    cameras: list[str] = field(default_factory=list)
    resolution: list[int] | None = None
    relative: list[str] = field(default_factory=list)
    prompt: bool = False


@dataclass
class Findings:
    """Everything `inspect-checkpoint` prints."""

    folder: str
    model: str = ""
    size: str = ""
    parameters: dict[str, int] = field(default_factory=dict)
    precision: dict[str, dict[str, int]] = field(default_factory=dict)
    bytes: int = 0
    horizon: int | None = None
    window_latents: int | None = None
    kind: str = ""
    base: str | None = None
    embodiments: list[EmbodimentFindings] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def examine(folder: Path, base: Path | None = None) -> Findings:
    """Look at a folder; whatever is wrong stands in `Findings.problems`, nothing is raised."""
    findings = Findings(str(folder))
    try:
        found = survey(folder, base)
    except CheckpointError as error:
        findings.problems.append(str(error))
        return findings
    _weights(findings, found)
    _embodiments(findings, folder, found.config.head.action_horizon)
    if not found.ok:
        findings.problems.insert(0, found.report())
    return findings


def _weights(findings: Findings, found: Survey) -> None:
    c = found.config
    findings.model = c.name
    findings.size = f"{c.dit.num_layers} layers of {c.dit.dim}, {c.dit.num_heads} heads"
    findings.horizon = c.head.action_horizon
    findings.window_latents = c.dit.local_attn_size
    for component in PREFIXES:
        mine = [f for f in found.fills.values() if f.slot.component == component]
        findings.parameters[component] = sum(f.slot.size for f in mine)
        dtypes: Counter[str] = Counter()
        for f in mine:
            dtypes[f.source.infos[f.stored].dtype] += f.slot.size
        findings.precision[component] = dict(dtypes.most_common())
    findings.bytes = sum(info.bytes for info in found.source.infos.values())
    findings.base = base_path(found.folder)
    findings.kind = {
        None: "full weights",
        "only": f"LoRA adapters only (alpha {found.alpha:g})",
        "with base": f"full weights with LoRA adapters (alpha {found.alpha:g}), merged at loading",
    }[found.lora]
    if c.head.train_architecture == "lora" and found.lora is None:
        findings.notes.append("trained with LoRA, the adapters are merged already")
    if found.lora == "only" and found.base is not None:
        findings.notes.append(
            f"merged onto {found.base.folder}; names alone cannot tell whether that is the base it "
            f"was trained on" + (f" ({findings.base})" if findings.base else "")
        )


def _embodiments(findings: Findings, folder: Path, horizon: int) -> None:
    metadata: dict[str, EmbodimentMetadata] = {}
    experiment: Experiment | None = None
    try:
        metadata = read_metadata(folder / "experiment_cfg" / "metadata.json")
    except CheckpointError as error:
        findings.problems.append(f"{error}. Without it actions stay in model units.")
    try:
        experiment = read_experiment(folder / "experiment_cfg" / "conf.yaml")
    except CheckpointError as error:
        findings.notes.append(f"{error}; key orders of the release are assumed")
    for tag, m in metadata.items():
        findings.embodiments.append(_embodiment(findings, tag, m, experiment, horizon))


def _embodiment(
    findings: Findings, tag: str, m: EmbodimentMetadata, experiment: Experiment | None, rows: int
) -> EmbodimentFindings:
    known, setup = EMBODIMENTS.get(tag), experiment and experiment.embodiments.get(tag)
    state = setup.state if setup else tuple(m.state_statistics)
    action = setup.action if setup else tuple(m.action_statistics)
    relative = experiment.relative if experiment else (known.relative if known else ())
    lacking = [f"state.{k}" for k in state if k not in m.state_statistics]
    lacking += [f"action.{k}" for k in action if k not in m.action_statistics]
    if lacking:
        findings.problems.append(f"{tag}: no statistics for {', '.join(lacking)}")
    for key in action:
        s = m.action_statistics.get(key)
        if s is not None and s.min.ndim == 2 and s.min.shape[0] != rows:
            findings.problems.append(
                f"{tag}: statistics of action.{key} are for {s.min.shape[0]} rows, the horizon is "
                f"{rows}"
            )
    if known is None or known.template is None:
        findings.notes.append(f"{tag}: the release has no prompt for this embodiment")
    fps = (setup.fps if setup else None) or next((v.fps for v in m.video.values()), None)
    try:
        resolution = m.resolution
    except CheckpointError as error:
        findings.problems.append(str(error))
        resolution = None
    return EmbodimentFindings(
        tag=tag,
        statistics=not lacking,
        state_dim=sum(m.state_statistics[k].dim for k in state if k in m.state_statistics),
        action_dim=sum(m.action_statistics[k].dim for k in action if k in m.action_statistics),
        step_period=1.0 / fps if fps else None,
        cameras=list(setup.video if setup else m.video),
        resolution=list(resolution) if resolution else None,
        relative=[k for k in relative if k in action],
        prompt=bool(known and known.template),
    )


def render(findings: Findings) -> str:
    """The findings as text."""
    f = findings
    lines = [f.folder]
    if f.model:
        lines += [
            f"  model      {f.model}: {f.size}; {f.kind}",
            f"  on disk    {f.bytes / 1e9:.2f} GB",
        ]
        for component, count in f.parameters.items():
            kinds = ", ".join(f.precision[component]) or "none here"
            lines.append(f"  {_LABELS[component]:14} {_count(count):>9} parameters, {kinds}")
        window = f"window {f.window_latents} latent frames"
        lines.append(f"  horizon    {f.horizon} action rows; {window}")
    for e in f.embodiments:
        period = f"{e.step_period * 1000:.1f} ms per row" if e.step_period else "period not stated"
        if e.step_period and f.horizon:
            period += f", {e.step_period * f.horizon:.2f} s per chunk"
        size = f" {e.resolution[0]}x{e.resolution[1]}" if e.resolution else ""
        lines += [
            f"  embodiment {e.tag}: state {e.state_dim}, action {e.action_dim}, {period}",
            f"             cameras {', '.join(e.cameras) or 'not listed'}{size}",
            f"             relative {', '.join(e.relative) or 'none'}; statistics "
            f"{'present' if e.statistics else 'INCOMPLETE'}",
        ]
    lines += [f"  note: {note}" for note in f.notes]
    lines += [f"PROBLEM {problem}" for problem in f.problems]
    lines.append(f"{len(f.problems)} problems" if f.problems else "no problems found")
    return "\n".join(lines)


def _count(n: int) -> str:
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if n >= size:
            return f"{n / size:.3f} {unit}" if unit == "B" else f"{n / size:.2f} {unit}"
    return str(n)
