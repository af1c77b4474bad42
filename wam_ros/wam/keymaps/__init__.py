"""Names and shapes of stored tensors, and where each goes in our modules.

Checkpoints use the names of the original Wan code; the modules of diffusers and transformers have
names of their own. One table per network serves both directions, loading and saving, and tells what
a complete checkpoint holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Entry:
    """One stored tensor.

    `targets` are the module's parameters it fills: one, or several stacked along the first axis.
    An entry without targets is stored by the release but never used in inference.
    """

    name: str
    shape: tuple[int, ...]
    targets: tuple[str, ...]


def to_module(entries: Iterable[Entry], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename and split stored tensors into the module's own state; unused ones are left out."""
    out: dict[str, Tensor] = {}
    for entry in entries:
        if entry.targets:
            out |= split(entry, state[entry.name])
    return out


def split(entry: Entry, tensor: Tensor) -> dict[str, Tensor]:
    """Parts of one stored tensor under the module's names."""
    parts = tensor.chunk(len(entry.targets), dim=0) if entry.targets else ()
    return dict(zip(entry.targets, parts))


def to_stored(entries: Iterable[Entry], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give a module's state its stored names; the inverse of `to_module`."""
    import torch

    out: dict[str, Tensor] = {}
    for entry in entries:
        parts = [state[target] for target in entry.targets]
        if parts:
            whole = parts[0] if len(parts) == 1 else torch.cat(parts, dim=0)
            out[entry.name] = whole.detach().reshape(entry.shape)
    return out
