"""The two values that travel between the parts: what was seen, and what to do.

Both are plain containers over numpy arrays, so that perception, policy, execution, recording and
simulation can speak to each other without middleware.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Kind = Literal["position", "velocity"]
CADENCES = ("sync", "async", "sliding")


@dataclass(frozen=True)
class Observation:
    """One synchronised look at the robot.

    Attributes
    ----------
    t0
        Reference time in ROS seconds; every source was aligned to it.
    views
        Camera name -> uint8 RGB ``(H, W, 3)`` at the model's view size, in view order.
    state
        Contract state vector, shape ``(S,)``; rad, m, or 0..1 for grippers.
    ages
        Source name -> seconds between ``t0`` and the sample used.
    skew
        Newest minus oldest sample used, in seconds.
    sequence
        Counts observations since the publisher started.
    """

    t0: float
    views: Mapping[str, NDArray[np.uint8]]
    state: FloatArray
    ages: dict[str, float] = field(default_factory=dict)
    skew: float = 0.0
    sequence: int = 0


@dataclass(frozen=True)
class ActionChunk:
    """A block of absolute joint targets; row ``i`` is due at ``t0 + i * step_period``.

    Attributes
    ----------
    t0
        Stamp of the observation it was computed from, ROS seconds.
    step_period
        Seconds between rows.
    actions
        Absolute targets, shape ``(H, D)``.
    names
        One name per column, length ``D`` (the contract's action names).
    kinds
        ``"position"`` or ``"velocity"`` per column, length ``D``.
    anchor_state
        State vector that the relative keys were added to, shape ``(S,)``.
    """

    t0: float
    step_period: float
    actions: FloatArray
    names: tuple[str, ...]
    kinds: tuple[Kind, ...]
    sequence: int = 0
    anchor_state: FloatArray = field(default_factory=lambda: np.empty(0))
    inference_start: float = 0.0
    inference_end: float = 0.0
    instruction: str = ""
    cadence: str = "sync"
    context_flags: int = 0

    @property
    def horizon(self) -> int:
        """Number of rows."""
        return int(self.actions.shape[0])

    @property
    def t_end(self) -> float:
        """Time of the last row, ROS seconds."""
        return self.t0 + (self.horizon - 1) * self.step_period
