"""Every tensor of a complete checkpoint: name, shape, and the network it belongs to."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from wam_ros.wam.config import ClipConfig, WamConfig
from wam_ros.wam.keymaps import Entry, clip, dit, keypoints, t5, vae

PREFIXES = {
    "dit": "action_head.model.",
    "text": "action_head.text_encoder.",
    "image": "action_head.image_encoder.model.visual.",
    "vae": "action_head.vae.model.",
}
"""Component -> what its names start with."""

_UNUSED = re.compile(r"action_head\.image_encoder\.model\.(log_scale$|textual\.)")


@dataclass(frozen=True)
class Slot:
    """One tensor of the checkpoint under its full name."""

    name: str
    component: str
    entry: Entry

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.entry.shape)

    @property
    def required(self) -> bool:
        """Whether inference uses it."""
        return bool(self.entry.targets)


def slots(config: WamConfig) -> dict[str, Slot]:
    """Full name -> slot, for all four networks of a configuration."""
    image = config.clip
    tables = {
        "dit": dit.entries(config.dit),
        "text": t5.entries(config.t5),
        "image": (
            clip.entries(image) if isinstance(image, ClipConfig) else keypoints.entries(image)
        ),
        "vae": vae.entries(config.vae),
    }
    out = {}
    for component, entries in tables.items():
        for entry in entries:
            name = PREFIXES[component] + entry.name
            out[name] = Slot(name, component, entry)
    return out


def unused(name: str) -> bool:
    """Whether a stored tensor outside the table is one that inference may ignore."""
    return bool(_UNUSED.match(name))


def component_of(name: str) -> str | None:
    """The component a full name belongs to."""
    return next((c for c, prefix in PREFIXES.items() if name.startswith(prefix)), None)
