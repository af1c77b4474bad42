"""One instruction from its start to its outcome: the state machine behind `run_instruction`.

It looks at the graph a few times a second and says, once, how the run ended. No ROS, no clock of
its own: every `Sight` brings its time along.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from wam_ros.contract.data import FloatArray


class Outcome(IntEnum):
    """How a run ended; the numbers are those of RunInstruction.action."""

    SUCCEEDED = 0
    STALLED = 1
    DEADLINE = 2
    CANCELLED = 3
    PREEMPTED = 4
    REFUSED = 5
    ERROR = 6
    STOPPED = 7


@dataclass(frozen=True)
class Settings:
    """When a run counts as stalled; see `InstructionRun`.

    ``stall_after`` is in seconds (0: never), ``motion`` in rad, m or gripper openings (0..1),
    ``progress`` in the judge's own 0..1. ``grace`` is how long (s) an executor may be disarmed at
    the start.
    """

    stall_after: float = 10.0
    motion: float = 0.02
    progress: float = 0.02
    grace: float = 3.0


@dataclass(frozen=True)
class Sight:
    """The graph at ``time`` (s, any clock that only goes forward).

    Attributes
    ----------
    phase, reason, active
        The policy's state, its reason, and whether its node is active.
    instruction, understood
        The instruction in force, and whether the policy took it.
    thinking
        An inference is under way, and the one before it did not fail.
    mode, executor_reason
        The executor's mode and its reason; both are empty when it has not been heard lately.
    state
        Newest measured state ``(S,)``, or None.
    judged, success, progress
        Whether a judge watches this instruction, and what it says; NaN where it says nothing.
    chunks
        Chunks published since the policy started.
    """

    time: float
    phase: str = "running"
    reason: str = ""
    active: bool = True
    instruction: str = ""
    understood: bool = True
    thinking: bool = False
    mode: str = "tracking"
    executor_reason: str = ""
    state: FloatArray | None = None
    judged: bool = False
    success: bool = False
    progress: float = math.nan
    chunks: int = 0


class InstructionRun:
    """Follows one instruction.

    **Stalled** means: for ``stall_after`` seconds no joint came ``motion`` away from where it was
    when the count began, and the judge's progress did not grow by ``progress`` either. The count
    leaves out the time in which the arm waits for a model at work (an inference is under way and no
    rows are being tracked), so a slow GPU in ``sync`` never stalls; a model that answers by staying
    where it is does, and so does one that fails again and again, or cameras that are gone. An arm
    that keeps moving without getting anywhere is not stalled: that is what the deadline is for.

    A judge's success counts once the judge was seen to say "not yet": what it says at first may
    still be about the run before.
    """

    def __init__(
        self, instruction: str, deadline: float, start: Sight, settings: Settings | None = None
    ) -> None:
        self.instruction = instruction
        self._deadline = deadline if deadline > 0 else math.inf
        self._settings = settings or Settings()
        self._begin = self._last = start.time
        self._first_chunk = start.chunks
        self._anchor: FloatArray | None = None
        self._best = -math.inf
        self._not_yet = self._was_armed = False
        self._end: tuple[Outcome, str] | None = None
        self.idle = self.elapsed = 0.0
        self.chunks = 0
        self.progress = math.nan
        self.status = "starting"

    @property
    def outcome(self) -> Outcome | None:
        """None while the run goes on."""
        return self._end[0] if self._end else None

    @property
    def message(self) -> str:
        """Why it ended."""
        return self._end[1] if self._end else ""

    def not_yet(self) -> None:
        """Note that the judge began with this run: what it says from now on counts."""
        self._not_yet = True

    def end(self, outcome: Outcome, message: str) -> None:
        """End by decision of somebody else; only the first end counts."""
        if self._end is None:
            self._end = (outcome, message)

    def update(self, sight: Sight) -> Outcome | None:
        """Take the next look; returns the outcome once there is one."""
        if self._end is not None:
            return self.outcome
        step = max(0.0, sight.time - self._last)
        self._last = max(self._last, sight.time)
        self.elapsed = self._last - self._begin
        self.chunks = max(0, sight.chunks - self._first_chunk)
        self.status = _status(sight)
        if sight.judged:
            self.progress = sight.progress
            self._not_yet = self._not_yet or not sight.success
        self._count(sight, step)
        found = self._over(sight)
        if found:
            self.end(*found)
        return self.outcome

    def _over(self, s: Sight) -> tuple[Outcome, str] | None:
        if s.judged and s.success and self._not_yet:
            return Outcome.SUCCEEDED, "the simulation's check is fulfilled"
        if s.instruction != self.instruction:
            if not s.instruction:
                return Outcome.CANCELLED, "the instruction was cleared"
            return Outcome.PREEMPTED, f"a newer instruction took over: '{s.instruction}'"
        stopped = self._stopped(s)
        if stopped:
            return Outcome.STOPPED, stopped
        if s.phase in ("error", "unconfigured"):
            return Outcome.ERROR, f"policy {s.phase}: {s.reason}" if s.reason else s.phase
        if not s.active and s.phase in ("ready", "running"):
            return Outcome.ERROR, "the policy node is not active"
        if not s.understood:
            return Outcome.REFUSED, s.reason or "the policy does not take this instruction"
        if self.elapsed >= self._deadline:
            return Outcome.DEADLINE, f"not done within {self._deadline:g} s"
        limit = self._settings.stall_after
        if 0 < limit <= self.idle:
            return Outcome.STALLED, f"no motion and no progress for {limit:g} s: {self.status}"
        return None

    def _stopped(self, s: Sight) -> str:
        if s.mode in ("", "estopped", "disarmed"):
            waiting = s.mode != "estopped" and not self._was_armed
            if not s.mode or (waiting and self.elapsed < self._settings.grace):
                return ""
            return f"executor {s.mode}: {s.executor_reason}"
        self._was_armed = True
        return ""

    def _count(self, s: Sight, step: float) -> None:
        """Add ``step`` to the count of idle seconds, or begin it anew."""
        moved = grown = False
        if s.state is not None:
            if self._anchor is None:
                self._anchor = s.state.copy()
            moved = bool(np.any(np.abs(s.state - self._anchor) >= self._settings.motion))
        if s.judged and math.isfinite(s.progress):
            grown = s.progress >= self._best + self._settings.progress
        if moved or grown:
            self.idle = 0.0
            self._anchor = None if s.state is None else s.state.copy()
            self._best = max(self._best, s.progress) if grown else self._best
        elif s.phase in ("ready", "running") and not (s.thinking and s.mode != "tracking"):
            self.idle += step


def _status(s: Sight) -> str:
    """What the graph is doing, in a few words."""
    if s.phase not in ("ready", "running"):
        return f"policy {s.phase}"
    if not s.mode:
        return "the executor is not heard"
    if s.mode == "tracking":
        return "tracking"
    if s.thinking:
        return "waiting for the model"
    because = s.reason or s.executor_reason
    return f"{s.mode}: {because}" if because else s.mode
