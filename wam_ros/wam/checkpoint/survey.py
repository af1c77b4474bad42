"""Compare what a checkpoint folder holds with what its configuration asks for. Reads no weights."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wam_ros.wam.checkpoint import layout
from wam_ros.wam.checkpoint.errors import CheckpointError, listing
from wam_ros.wam.checkpoint.layout import Slot
from wam_ros.wam.checkpoint.lora import Adapter, adapters, is_adapter, plain_name
from wam_ros.wam.checkpoint.origin import noted_base
from wam_ros.wam.checkpoint.source import Source, open_source
from wam_ros.wam.config import ConfigError, WamConfig
from wam_ros.wam.config_io import read_config


@dataclass(frozen=True)
class Fill:
    """Where one tensor comes from, and the LoRA factors (of the checkpoint itself) to merge."""

    slot: Slot
    source: Source
    stored: str
    adapter: Adapter | None = None


@dataclass
class Survey:
    """A checkpoint folder set against its configuration.

    Attributes
    ----------
    fills
        By full name, every tensor of the model that was found.
    missing, extra
        Full names that the model needs and nobody has; stored names that it does not know.
    misshapen
        Full name -> what is wrong with its shape.
    lora
        ``None`` (no adapters), ``only`` (adapters need a base) or ``with base`` (the file holds
        the base weights too).
    """

    folder: Path
    config: WamConfig
    source: Source
    base: Source | None
    slots: dict[str, Slot]
    alpha: float
    lora: str | None = None
    fills: dict[str, Fill] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)
    misshapen: dict[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether every tensor is there and fits."""
        return not (self.missing or self.extra or self.misshapen)

    def report(self) -> str:
        """All misfits by name, and what to do about them."""
        total = len(self.slots)
        lines = [f"{self.folder}: the weights do not fit the configuration ({self.config.name})"]
        if self.missing:
            lines.append(f"  missing, {len(self.missing)} of {total} tensors:")
            lines.append(listing(self.missing))
        if self.misshapen:
            lines.append(f"  misshapen, {len(self.misshapen)}:")
            lines.append(listing([f"{n}: {why}" for n, why in self.misshapen.items()]))
        if self.extra:
            lines.append(f"  extra, not part of this model, {len(self.extra)}:")
            lines.append(listing(self.extra))
        return "\n".join([*lines, *(f"  {hint}" for hint in self._hints())])

    def raise_if_bad(self) -> None:
        """Raise CheckpointError with the report unless everything fits."""
        if not self.ok:
            raise CheckpointError(self.report())

    def _hints(self) -> list[str]:
        if not self.fills:
            return [
                "No tensor of the model was found: this is another kind of checkpoint. Expected "
                "names start with action_head., as in GEAR-Dreams/DreamZero-DROID."
            ]
        if self.lora == "only" and self.base is None:
            named = base_path(self.folder)
            return [
                "These are LoRA adapters only. Give the folder they were trained on with --base"
                + (f" (its config names {named})." if named else "."),
                "Trained on top of DreamZero-AgiBot they need that folder, not raw Wan weights.",
            ]
        hints = []
        images = [n for n in self.missing if ".img_emb." in n or "k_img" in n or "v_img" in n]
        if images and self.base is not None:
            hints.append(
                f"{len(images)} of the missing are the image branch, which the base lacks (raw "
                "Wan2.2-TI2V-5B does); the stock loader would leave them random. Use a DreamZero "
                "5B checkpoint as base."
            )
        gone = sorted({self.slots[n].component for n in self.missing} - self._components())
        if gone:
            hints.append(
                f"Nothing at all is there of: {', '.join(gone)}. A base folder (--base) with raw "
                "Wan weights or a full checkpoint can supply them."
            )
        if self.misshapen:
            hints.append(
                "Other shapes mean that config.json and the weights belong to different models."
            )
        return hints or ["Copy or download the checkpoint again; compare with its model card."]

    def _components(self) -> set[str]:
        return {fill.slot.component for fill in self.fills.values()}


def survey(folder: Path, base: Path | None = None) -> Survey:
    """Look at a checkpoint folder, and the base it builds on.

    Parameters
    ----------
    folder
        A checkpoint in the released layout.
    base
        Where tensors come from that `folder` does not hold: a full checkpoint, or a folder of raw
        Wan weights (``diffusion_pytorch_model*.safetensors`` and the three ``.pth`` files). None
        takes, for adapters of ours, the checkpoint they were trained on (`origin.noted_base`).

    Raises
    ------
    CheckpointError
        If there is no configuration or no weights, or files are missing or cut off. Tensors that
        do not fit raise nothing here: see `Survey.raise_if_bad`.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder")
    try:
        config = read_config(folder)
    except ConfigError as error:
        raise CheckpointError(str(error)) from error
    source = open_source(folder)
    if base is None and any(map(is_adapter, source.infos)):
        base = noted_base(folder)
    base_source = open_source(base) if base else None
    if base_source is not None and any(map(is_adapter, base_source.infos)):
        raise CheckpointError(
            f"{base}: the base holds LoRA adapters itself; merge and save it first "
            "(docs/checkpoints.md)"
        )
    found = Survey(
        folder, config, source, base_source, layout.slots(config), float(config.head.lora_alpha)
    )
    _match(found)
    return found


def base_path(folder: Path) -> str | None:
    """The path of the base weights that ``config.json`` remembers, if any."""
    try:
        data: Any = json.loads((folder / "config.json").read_text())
        head = data["action_head_cfg"]["config"]
        path = head["diffusion_model_cfg"].get("diffusion_model_pretrained_path")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return str(path) if path else None


def _match(found: Survey) -> None:
    deltas = adapters(found.source.infos)
    own = {plain_name(n): n for n in found.source.infos if not is_adapter(n)}
    under = dict.fromkeys(found.base.infos) if found.base else {}
    for name, slot in found.slots.items():
        adapter = deltas.pop(name, None)
        if name in own:
            fill = Fill(slot, found.source, own.pop(name), adapter)
        elif found.base is not None and name in under:
            fill = Fill(slot, found.base, name, adapter)
        else:
            if slot.required:
                found.missing.append(name)
            if adapter and found.lora is None:
                found.lora = "only"
            continue
        if adapter and found.lora is None:
            found.lora = "with base" if fill.source is found.source else "only"
        if why := _misfit(fill, found.source):
            found.misshapen[name] = why
        found.fills[name] = fill
    found.extra = sorted(stored for name, stored in own.items() if not layout.unused(name))
    found.extra += sorted(adapter.down for adapter in deltas.values())


def _misfit(fill: Fill, source: Source) -> str | None:
    stored, wanted = fill.source.infos[fill.stored].shape, fill.slot.entry.shape
    if stored != wanted:
        return f"stored {list(stored)}, expected {list(wanted)}"
    if fill.adapter is None:
        return None
    infos = source.infos
    down, up = infos[fill.adapter.down].shape, infos[fill.adapter.up].shape
    if (*up[:1], *down[1:]) != wanted or up[1:] != down[:1]:
        return f"LoRA factors {list(up)} x {list(down)}, expected their product {list(wanted)}"
    return None
