"""LoRA checkpoints: which tensors are deltas, what they belong to, and merging them.

Adapters are stored by PEFT as ``<module>.lora_A.default.weight`` [rank, in] and ``lora_B`` [out,
rank]. The merged weight is ``W + (alpha / rank) B A``. Names carry PEFT's wrappers, which the
stock loader of the release only half removes: full weights of a LoRA run then stay unread. Here
every spelling is brought to the plain name, and what does not fit is an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wam_ros.wam.checkpoint.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

_ADAPTER = re.compile(r"(?P<module>.+)\.lora_(?P<side>[AB])(?:\.default)?\.weight$")


@dataclass(frozen=True)
class Adapter:
    """Stored names of the two factors that change one weight."""

    down: str
    up: str


def plain_name(name: str) -> str:
    """Remove PEFT's wrappers, ``base_model.model`` and ``base_layer``, from a stored name."""
    return name.replace(".base_model.model.", ".").replace(".base_layer.", ".")


def is_adapter(name: str) -> bool:
    """Whether a stored tensor is a LoRA factor."""
    return _ADAPTER.match(name) is not None


def adapters(names: Iterable[str]) -> dict[str, Adapter]:
    """Plain weight name -> its adapter.

    Raises
    ------
    CheckpointError
        If one of the two factors is missing.
    """
    sides: dict[str, dict[str, str]] = {}
    for name in names:
        if match := _ADAPTER.match(name):
            weight = f"{plain_name(match['module'])}.weight"
            sides.setdefault(weight, {})[match["side"]] = name
    halves = sorted(weight for weight, found in sides.items() if len(found) < 2)
    if halves:
        raise CheckpointError(
            f"{len(halves)} LoRA weights have only one of lora_A and lora_B, the first is "
            f"{halves[0]}; the file is incomplete"
        )
    return {weight: Adapter(found["A"], found["B"]) for weight, found in sides.items()}


def merge(weight: Tensor, down: Tensor, up: Tensor, alpha: float) -> Tensor:
    """Merged weight in float32.

    Parameters
    ----------
    weight
        [out, in], the base.
    down, up
        ``lora_A`` [rank, in] and ``lora_B`` [out, rank].
    alpha
        Scale of the adapter times its rank.

    Raises
    ------
    CheckpointError
        If the factors do not fit each other or the weight.
    """
    rank = down.shape[0]
    if up.shape[1] != rank or (up.shape[0], down.shape[1]) != tuple(weight.shape):
        raise CheckpointError(
            f"LoRA factors {tuple(up.shape)} and {tuple(down.shape)} do not fit a weight of shape "
            f"{tuple(weight.shape)}; this adapter was trained on another base"
        )
    return weight.float() + (alpha / rank) * (up.float() @ down.float())
