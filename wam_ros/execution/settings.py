"""What may be tuned, what is counted, and the modes of the executor."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, field

from wam_ros.execution.metrics import Window

WARM_UP = 4
"""ActionChunk.CONTEXT_WARM_UP: its latency says nothing; at rest, its rows start on arrival."""


class Mode(enum.IntEnum):
    """Same numbers as ExecutorState.mode."""

    DISARMED = 0
    HOLDING = 1
    TRACKING = 2
    STOPPING = 3
    ESTOPPED = 4


@dataclass(frozen=True)
class Settings:
    """What may be tuned without touching safety.

    Attributes
    ----------
    smoothing
        Time constant of the path's smoothing (s), see `plan`.
    fade
        Seconds over which the offset between reference and a new chunk fades; 0 leaves it to the
        smoothing alone.
    ensemble
        Share 0..1 of what was expected before that is mixed into a new chunk.
    savgol
        Whether rows pass DreamZero's Savitzky-Golay filter first.
    reanchor_cap
        Largest offset (rad or m) between reference and chunk; one further off is refused.
    slowest
        Pace 0.2..1 down to which motion is slowed while no fresh chunk comes; 1 never slows. The
        rows then take up to ``1 / slowest`` times as long.
    stale_after
        Age of measurements (s) beyond which the arm stops.
    gripper_step
        Changes of a gripper's target below this are ignored.
    chunk_age
        Age (s) beyond which a whole chunk is refused.
    gentle
        Share of acceleration and jerk limits used by stops that are not urgent.
    """

    smoothing: float = 0.1
    fade: float = 0.0
    ensemble: float = 0.0
    savgol: bool = False
    reanchor_cap: float = 0.6
    slowest: float = 1.0
    stale_after: float = 0.3
    gripper_step: float = 0.02
    chunk_age: float = 5.0
    gentle: float = 0.5

    def __post_init__(self) -> None:
        for name, most in (("smoothing", 2.0), ("fade", 5.0), ("ensemble", 1.0)):
            value = getattr(self, name)
            if not 0.0 <= value <= most:
                raise ValueError(f"{name} is {value}; 0 to {most:g} are possible")
        if not 0.0 < self.reanchor_cap < math.inf:
            raise ValueError(f"reanchor_cap is {self.reanchor_cap}; it must be above 0")
        if not 0.2 <= self.slowest <= 1.0:
            raise ValueError(f"slowest is {self.slowest}; 0.2 to 1 are possible, 1 never slows")


@dataclass
class Counters:
    """What happened since the start."""

    ticks: int = 0
    accepted: int = 0
    rejected: int = 0
    limiter_ticks: int = 0
    seam_jump_max: float = 0.0
    following_error: float = 0.0
    delay_rows: float = 0.0
    latency: Window = field(default_factory=lambda: Window(200))
