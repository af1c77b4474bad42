"""Do the savings return the plain path's actions? Chained calls on random weights, and a report.

The chain goes through a full window, an instruction that changes, all forms of an observation and
idle time between calls, because errors in a cache only show later.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from wam_ros.wam import flops
from wam_ros.wam.checkpoint.load import Networks
from wam_ros.wam.config import WamConfig
from wam_ros.wam.head import CallOptions, CallResult, PolicyHead
from wam_ros.wam.presets import preset, tiny
from wam_ros.wam.random_model import random_networks, random_prompt
from wam_ros.wam.savings import Savings

# (frames, which instruction): first call, window, full, new instruction, short observations.
CHAIN = ((1, 0), (9, 0), (8, 0), (4, 0), (9, 0), (9, 0), (9, 1), (8, 1))

MODES = {
    "8 of 16 steps": CallOptions(steps=16, dit_steps=8),
    "4 steps": CallOptions(steps=4),
    "1 step": CallOptions(steps=1),
}

TOLERANCE = 1e-5
"""Largest relative L2 error of an action in float32, over all calls of the chain."""


def build_head(config: WamConfig, networks: Networks, savings: Savings, seed: int) -> PolicyHead:
    """A head on given networks; use only the newest on them, because savings rebuild layers."""
    negative = random_prompt(config, seed + 1, tokens=7)
    n = networks
    return PolicyHead(config, n.dit, n.text, n.image, n.vae, negative, savings)


def run_chain(
    head: PolicyHead, options: CallOptions | Sequence[CallOptions], seed: int, idle: bool = True
) -> list[CallResult]:
    """The calls of `CHAIN` with random frames and states; options for all or for each.

    With ``staged_vae`` the frames are encoded one by one; with ``idle`` some of the lazy
    conditioning is done between calls.
    """
    config, c = head.config, head.config.dit
    every = [options] * len(CHAIN) if isinstance(options, CallOptions) else options
    generator = torch.Generator().manual_seed(seed)
    prompts = [random_prompt(config, seed + 10 + i, tokens=4 + i) for i in range(2)]
    size = (config.head.video_height, config.head.video_width, 3)
    results = []
    for i, (count, which) in enumerate(CHAIN):
        images = torch.randint(0, 256, (1, count, *size), dtype=torch.uint8, generator=generator)
        state = 2 * torch.rand(1, c.num_state_per_block, c.max_state_dim, generator=generator) - 1
        staged = None
        if head.savings.staged_vae and not head.will_reset(prompts[which][0], count):
            clip = head.stage(count)
            for j in range(count):
                clip.push(head.prepare(images[:, j : j + 1]))
            staged = clip.latents()
        results.append(head.call(images, *prompts[which], state, every[i], staged=staged))
        if idle and i % 2:
            head.finish_conditioning()
    return results


@dataclass(frozen=True)
class Comparison:
    """Actions of a chain against the plain path's.

    Attributes
    ----------
    largest
        Largest absolute difference of an action value (they are normalised, of order one).
    relative
        Largest relative L2 error of a call's action.
    video
        The same of the imagined latents; NaN where no video was wanted.
    forwards
        Transformer forwards that were left out, mean per call.
    """

    largest: float
    relative: float
    video: float
    forwards: float


def _count(result: CallResult) -> int:
    return sum(result.prefills) + sum(result.denoises)


def compare(ours: Sequence[CallResult], plain: Sequence[CallResult]) -> Comparison:
    """Compare two runs of the same chain."""

    def relative(a: torch.Tensor, b: torch.Tensor) -> float:
        return float((a - b).norm() / b.norm())

    pairs = list(zip(ours, plain))
    videos = [
        relative(a.video, b.video) for a, b in pairs if a.video is not None and b.video is not None
    ]
    return Comparison(
        max(float((a.action - b.action).abs().max()) for a, b in pairs),
        max(relative(a.action, b.action) for a, b in pairs),
        max(videos, default=float("nan")),
        sum(_count(b) - _count(a) for a, b in pairs) / len(pairs),
    )


def switches() -> dict[str, Savings]:
    """Every switch alone (with what it needs), and all together."""
    return {**{name: Savings.only(name) for name in Savings.names()}, "all": Savings.all()}


def report_config() -> WamConfig:
    """The small model of the report: three layers, 24 action rows."""
    return tiny(dim=96, num_heads=4, num_layers=3, latent=(2, 4), action_rows=24)


def report(seed: int = 0, config: WamConfig | None = None) -> dict[str, Any]:
    """Errors of every switch on a small model, and what it saves on the 14B shape; JSON-ready.

    Errors are the worst over the sampling modes, with the video wanted and without. Saved
    operations are those of an action-only call, mean over a window.
    """
    config = config or report_config()
    networks = random_networks(config, seed)
    big = preset("14b")
    runs = [
        (mode, video, dataclasses.replace(options, want_video=video))
        for mode, options in MODES.items()
        for video in (False, True)
    ]
    plain = build_head(config, networks, Savings.none(), seed)
    reference = {(m, v): _fresh(plain, o, seed) for m, v, o in runs}
    costs = flops.encoders(big)
    rows = []
    for name, savings in switches().items():
        head = build_head(config, networks, savings, seed)
        found = {(m, v): compare(_fresh(head, o, seed), reference[m, v]) for m, v, o in runs}
        worst = max(found.values(), key=lambda c: c.relative)
        saved = {
            mode: {
                "forwards": found[mode, False].forwards,
                "tflop": _saved(big, dataclasses.replace(options, want_video=False), savings),
            }
            for mode, options in MODES.items()
        }
        rows.append(
            {
                "switch": name,
                "max_abs": max(c.largest for c in found.values()),
                "relative": worst.relative,
                "video_relative": max(c.video for (_, v), c in found.items() if v),
                "ok": worst.relative <= TOLERANCE,
                "saved": saved,
                **_encoders(big, savings, costs),
            }
        )
    return {
        "seed": seed,
        "calls": len(CHAIN),
        "tolerance": TOLERANCE,
        "model": config.name,
        "plain_tflop": {
            m: flops.chunk(big, o, Savings.none()).flops / 1e12 for m, o in MODES.items()
        },
        "rows": rows,
        "ok": all(row["ok"] for row in rows),
    }


def _fresh(head: PolicyHead, options: CallOptions, seed: int) -> list[CallResult]:
    head.restart()
    return run_chain(head, options, seed)


def _saved(config: WamConfig, options: CallOptions, savings: Savings) -> float:
    plain = flops.chunk(config, options, Savings.none())
    return (plain.flops - flops.chunk(config, options, savings).flops) / 1e12


def _encoders(config: WamConfig, savings: Savings, costs: flops.Encoders) -> dict[str, float]:
    """TFLOP of the encoders: left out per call, and done before the call instead of in it."""
    calls = len(flops.window_calls(config.dit))
    clip = 1 + 4 * config.dit.num_frame_per_block
    text = 2 * costs.text if savings.cache_context else 0.0
    early = 0.0
    if savings.staged_vae:
        # All but the last group of frames is encoded when the last frame comes.
        early += (costs.vae(clip) - costs.vae_group) * (calls - 1) / calls
    if savings.lazy_conditioning:
        early += (costs.vae(config.head.num_frames) - costs.vae(clip)) / calls
    return {"encoder_tflop_saved": text / 1e12, "encoder_tflop_early": early / 1e12}


def lines(found: dict[str, Any]) -> Iterator[str]:
    """The report as text."""
    modes = list(MODES)
    yield (
        f"Savings against the plain path: {found['calls']} chained calls, random weights "
        f"({found['model']}, float32, seed {found['seed']})."
    )
    yield "Errors are the worst of all sampling modes, with and without video. Saved TFLOP are"
    yield "the transformer's on the 14B shape per action-only call, mean over a window of calls:"
    whole = ", ".join(f"{m} {t:.0f}" for m, t in found["plain_tflop"].items())
    yield f"plain path {whole}. Encoders: left out + done before the call."
    yield ""
    head = f"{'switch':18} {'max error':>9} {'relative':>9}"
    yield head + "".join(f" {m:>15}" for m in modes) + f" {'encoders':>13}"
    yield " " * 38 + " forwards, TFLOP" * len(modes)
    for row in found["rows"]:
        cells = "".join(
            f" {row['saved'][m]['forwards']:5.2f} {row['saved'][m]['tflop']:9.1f}" for m in modes
        )
        text, early = row["encoder_tflop_saved"], row["encoder_tflop_early"]
        mark = "" if row["ok"] else f"  MISS (limit {found['tolerance']:.0e})"
        errors = f"{row['max_abs']:9.1e} {row['relative']:9.1e}"
        yield f"{row['switch']:18} {errors}{cells} {text:6.1f} {early:+6.1f}{mark}"
