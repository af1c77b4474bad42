"""Processes that train one model together, started by torchrun."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

_PATIENCE = timedelta(hours=6)
"""The first rank may encode a whole dataset while others wait; if one dies, torchrun ends all."""


@dataclass(frozen=True)
class Ranks:
    """The processes that train together, seen from one of them."""

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this one speaks and writes for all."""
        return self.rank == 0

    def agree(self, value: float) -> float:
        """The first rank's value, for all."""
        told = torch.tensor([value], dtype=torch.float64)
        dist.broadcast(told, 0)
        return float(told)

    def mean(self, value: float) -> float:
        """The mean over the ranks."""
        total = torch.tensor([value], dtype=torch.float64)
        dist.all_reduce(total)
        return float(total) / self.world

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """The first rank alone, then the others: they find what it left in the cache."""
        if not self.first:
            self.agree(0.0)
        yield
        if self.first:
            self.agree(0.0)

    def leave(self) -> None:
        """End the group."""
        dist.destroy_process_group()


def join() -> Ranks | None:
    """Join the group that torchrun announces in the environment; None without one."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return None
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    # Numbers that the ranks agree on stay on the CPU.
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=_PATIENCE)
    return Ranks(dist.get_rank(), dist.get_world_size(), device)


def local(tensor: Tensor) -> Tensor:
    """This rank's part of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def put(part: Tensor, like: Tensor) -> Tensor:
    """A rank's part as a tensor laid out as ``like``; a count stays on the CPU, as AdamW wants."""
    if part.ndim == 0:
        return part
    part = part.to(like.device)
    if not isinstance(like, DTensor):
        return part
    return DTensor.from_local(
        part, like.device_mesh, like.placements, shape=like.shape, stride=like.stride()
    )
