"""What a policy backend is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from wam_ros.contract.data import ActionChunk, FloatArray, Observation
from wam_ros.contract.model import Contract


class PolicyError(RuntimeError):
    """A backend cannot go on; the message says why and what to do."""


@dataclass(frozen=True)
class Window:
    """What a backend is shown at a call.

    ``frames`` are observations at the training stride, oldest first; the newest one is the
    reference for ``t0`` and the state. ``objects`` are true object centres in the root frame (m),
    known in simulation only and used by the scripted teacher only. ``executed_rows`` counts the
    rows of the last chunk that were carried out when the newest frame was taken, ``rows`` those at
    each frame (below 0 before its first); without ``rows`` they count back at the rows' speed.
    """

    frames: tuple[Observation, ...]
    objects: dict[str, FloatArray] = field(default_factory=dict)
    executed_rows: float = 0.0
    cadence: str = "sync"
    rows: tuple[float, ...] = ()

    @property
    def newest(self) -> Observation:
        """The observation the chunk will be stamped with."""
        return self.frames[-1]


@dataclass(frozen=True)
class Afterthought:
    """What a backend can still tell about a chunk once that is on its way.

    It describes one chunk for good and may be asked in another thread while the next call runs.

    Attributes
    ----------
    surprise
        Works out the normalised distance between what was imagined and what was then seen; NaN
        where it is not defined.
    frames
        What the model expects to see: (time in s on the chunk's clock, RGB uint8 [H, W, 3]), oldest
        first. They are decoded as they are asked for, so that one may stop at any of them.
    """

    surprise: Callable[[], float]
    frames: Iterator[tuple[float, NDArray[np.uint8]]]


class Policy(Protocol):
    """A backend. Every call runs in one worker thread, never in the ROS executor.

    A backend may have more: ``frame_rows`` (see `frame_rows`), ``context_fill`` (0 to 1),
    ``notice`` (what people should know while it lasts, for `policy_state`),
    ``diagnostics() -> dict[str, str]``, and ``imagine() -> Afterthought | None``, which belongs to
    the last chunk and costs nothing until it is used.

    Attributes
    ----------
    name, model, precision
        For `policy_state`.
    needs_objects
        Whether the simulation's true object poses are wanted (the teacher).
    """

    name: str
    model: str
    precision: str
    needs_objects: bool

    def configure(self, contract: Contract) -> None:
        """Load what is needed; raises PolicyError when contract and model do not fit."""

    def warm_up(self) -> None:
        """Run once on made-up input so that the first real call is not the slowest."""

    def reset(self, instruction: str) -> None:
        """Start over for a new instruction; raises ValueError when it is not understood."""

    def infer(self, window: Window) -> ActionChunk:
        """Return a chunk; sequence, instruction, cadence and timing are filled in by the caller."""

    def close(self) -> None:
        """Free what was loaded."""


def frame_rows(policy: Policy | None) -> tuple[int, ...]:
    """When the frames of a call should have been seen, in action rows before its newest one.

    A backend says so with an attribute ``frame_rows`` (oldest first, 0 last); one that looks at
    the newest frame only needs none.
    """
    return tuple(getattr(policy, "frame_rows", (0,)))


def device_lost(error: BaseException) -> bool:
    """Whether only a new process can help: the accelerator or its context is gone.

    Running out of memory is not that; the next session starts with an empty cache.
    """
    if type(error).__name__ == "OutOfMemoryError":
        return False
    text = str(error)
    return type(error).__name__ == "AcceleratorError" or "CUDA error" in text
