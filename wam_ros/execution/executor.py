"""The executor's state machine: chunks and measurements in, one command per tick out.

Everything is driven by the caller's clock, so the same code runs offline and in the live loop.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

import numpy as np

from wam_ros.contract.data import ActionChunk, FloatArray
from wam_ros.contract.model import Contract
from wam_ros.execution.gate import Gate, check_chunk
from wam_ros.execution.limiter import Limiter
from wam_ros.execution.metrics import Window
from wam_ros.execution.plan import Path, splice


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

    ``reanchor_cap`` (rad or m) is the largest offset between reference and chunk that is faded
    away; a chunk further off is refused. ``fade`` and ``blend`` are seconds. ``stale_after`` is
    the age of measurements beyond which the arm stops. ``gripper_step`` is the hysteresis of
    grippers, ``chunk_age`` the age beyond which a whole chunk is refused.
    """

    reanchor_cap: float = 0.6
    fade: float = 0.4
    blend: float = 0.15
    stale_after: float = 0.3
    gripper_step: float = 0.02
    chunk_age: float = 5.0


@dataclass
class Counters:
    """What happened since the start."""

    ticks: int = 0
    accepted: int = 0
    rejected: int = 0
    limiter_ticks: int = 0
    seam_jump_max: float = 0.0
    following_error: float = 0.0
    latency: Window = field(default_factory=lambda: Window(200))


class Executor:
    """Follow chunks with the joints in ``contract.control_names``.

    Nothing is commanded before `arm`; arming takes the reference from the measured state. The
    reference never leaves the limits (see `limiter`), and the gate has the last word.
    """

    def __init__(self, contract: Contract, settings: Settings | None = None) -> None:
        self.contract = contract
        self.settings = settings or Settings()
        self.names = contract.control_names
        joints = [contract.joints[n] for n in self.names]
        limits = [j.limits for j in joints]
        self._lower = np.array([x.lower for x in limits])
        self._upper = np.array([x.upper for x in limits])
        self._period = 1.0 / contract.rates.control
        self._gripper = np.array(
            [contract.group_of(n).role == "gripper" for n in self.names], dtype=bool
        )
        # No honest tick moves a joint further than its top speed allows; twice that is a fault.
        self._max_step = np.array([2.0 * x.velocity * self._period for x in limits])
        self._limiter = Limiter(limits, self._period)
        self._gate = Gate(self.names, limits)
        self._index = {n: i for i, n in enumerate(self.names)}
        self.measured = np.full(len(self.names), np.nan)
        self._measured_at = np.full(len(self.names), -np.inf)
        self._path: Path | None = None
        self._chunk: ActionChunk | None = None
        self._start = 0.0
        self._fresh_chunk = False
        self.mode = Mode.DISARMED
        self.reason = "not armed yet"
        self.counters = Counters()

    # ---- inputs ------------------------------------------------------------------------------

    def set_measured(self, values: dict[str, float], now: float) -> None:
        """Take joint positions by name; unknown names are ignored, NaN counts as not seen."""
        for name, value in values.items():
            i = self._index.get(name)
            if i is not None and np.isfinite(value):
                self.measured[i] = value
                self._measured_at[i] = now

    def submit(self, chunk: ActionChunk, now: float) -> str:
        """Take a new chunk; returns an empty string, or why it was refused.

        A refused chunk leaves the current motion untouched. Without being armed, or while
        e-stopped, chunks are ignored with a reason.
        """
        if self.mode in (Mode.DISARMED, Mode.ESTOPPED):
            return f"{self.mode.name.lower()}: chunk {chunk.sequence} ignored"
        reason = check_chunk(chunk, self.names) or self._splice(chunk, now)
        if reason:
            self.counters.rejected += 1
            self.reason = f"chunk {chunk.sequence} refused: {reason}"
        else:
            self.counters.accepted += 1
        return reason

    def reject(self, reason: str) -> None:
        """Count a chunk that could not even be read."""
        self.counters.rejected += 1
        self.reason = f"chunk refused: {reason}"

    def _splice(self, chunk: ActionChunk, now: float) -> str:
        s = self.settings
        if not -s.chunk_age <= now - chunk.t0 <= s.chunk_age:
            return f"it is {now - chunk.t0:.2f} s old, more than {s.chunk_age} s"
        # In sync the arm held still while the policy thought, so the rows start on arrival and
        # none is lost; otherwise each row is due at its stamp.
        start = now if chunk.cadence == "sync" else chunk.t0
        steps = np.arange(chunk.horizon, dtype=np.float64)
        times: FloatArray = np.asarray(start + steps * chunk.step_period)
        if times[-1] <= now + chunk.step_period:
            return f"all {chunk.horizon} rows lie in the past"
        columns = [chunk.names.index(n) for n in self.names]
        rows = np.clip(chunk.actions[:, columns], self._lower, self._upper)
        lim = self._limiter
        reference = (lim.position, lim.velocity, lim.acceleration)
        path, offset = splice(now, reference, times, rows, self._path, s.fade, s.blend)
        offset = np.where(self._gripper, 0.0, np.abs(offset))
        worst = int(np.argmax(offset))
        if offset[worst] > s.reanchor_cap:
            return (
                f"{self.names[worst]} would start {offset[worst]:.3f} away from the reference, "
                f"more than {s.reanchor_cap}"
            )
        self._path, self._chunk, self._fresh_chunk = path, chunk, True
        self._start = start
        self.mode, self.reason = Mode.TRACKING, ""
        return ""

    # ---- commands from people ----------------------------------------------------------------

    def arm(self, now: float) -> str:
        """Take the measured state as reference and start holding; returns why not, or ''."""
        if self.mode is Mode.ESTOPPED:
            return "e-stop is latched: release it and call reset first"
        if self.mode is not Mode.DISARMED:
            return ""
        missing = [n for n, v in zip(self.names, self.measured, strict=True) if not np.isfinite(v)]
        if missing:
            return f"no joint state yet for {', '.join(missing)}"
        if self._stale(now):
            return "joint states are stale; is the driver running?"
        self._limiter.reset(self.measured)
        self._forget()
        self.mode, self.reason = Mode.HOLDING, "armed, waiting for a chunk"
        return ""

    def disarm(self, reason: str) -> None:
        """Stop sending commands at once."""
        self._forget()
        if self.mode is not Mode.ESTOPPED:
            self.mode, self.reason = Mode.DISARMED, reason

    def hold(self, reason: str) -> None:
        """Decelerate to a hold and forget the chunk."""
        if self.mode in (Mode.TRACKING, Mode.STOPPING):
            self._forget()
            self.mode, self.reason = Mode.STOPPING, reason

    def estop(self, reason: str) -> None:
        """Stop with the largest deceleration allowed and latch."""
        self._forget()
        self.mode, self.reason = Mode.ESTOPPED, reason

    def reset(self) -> None:
        """Release a latched e-stop; the robot stays disarmed until `arm`."""
        if self.mode is Mode.ESTOPPED:
            self.mode, self.reason = Mode.DISARMED, "reset, not armed"

    def _forget(self) -> None:
        self._path = self._chunk = None

    # ---- the tick ----------------------------------------------------------------------------

    def tick(self, now: float) -> FloatArray | None:
        """Advance one control period; returns the command ``(D,)``, or None when silent."""
        self.counters.ticks += 1
        if self.mode is Mode.DISARMED:
            return None
        if self.mode is Mode.ESTOPPED and (self._limiter.at_rest or self._stale(now)):
            return None
        self._watch(now)
        previous = self._limiter.position
        command = self._advance(now)
        reason = self._gate.check(command, previous, self._max_step)
        if reason:
            self.estop(f"gate: {reason}")
            return None
        if self._fresh_chunk and self._chunk is not None and self.mode is Mode.TRACKING:
            self.counters.latency.add(now - self._chunk.t0)
            self._fresh_chunk = False
        return command

    def _watch(self, now: float) -> None:
        if self._stale(now):
            self.hold("joint states are stale")
            return
        error, reason = self._gate.following_error(self._limiter.position, self.measured)
        self.counters.following_error = error
        if reason and self.mode is not Mode.ESTOPPED:
            self.disarm(f"following error: {reason}")
            self._limiter.reset(self.measured)

    def _advance(self, now: float) -> FloatArray:
        limiter = self._limiter
        if self.mode is Mode.DISARMED:  # tripped in this very tick: repeat the last reference
            return limiter.position
        if self.mode is not Mode.TRACKING or self._path is None:
            command = limiter.brake() if not limiter.at_rest else limiter.position
            if self.mode is Mode.STOPPING and limiter.at_rest:
                self.mode = Mode.HOLDING
            return command
        if now >= self._path.end and limiter.at_rest:
            self._forget()
            self.mode, self.reason = Mode.HOLDING, "rows ran out; waiting for a chunk"
            return limiter.position
        target, velocity, _ = self._path.sample(now)
        if self._path.end - now < limiter.stop_time():
            # Come to rest on the last row instead of running past it.
            target, velocity = self._path.sample(self._path.end)[0], np.zeros(len(self.names))
        target = self._gripper_target(target)
        velocity = np.where(self._gripper, 0.0, velocity)
        before = limiter.position + limiter.velocity * self._period
        command, limited = limiter.step(target, velocity)
        self.counters.limiter_ticks += int(limited)
        if self._fresh_chunk:
            jump = float(np.max(np.abs(command - before)[~self._gripper], initial=0.0))
            self.counters.seam_jump_max = max(self.counters.seam_jump_max, jump)
        return command

    def _gripper_target(self, target: FloatArray) -> FloatArray:
        """Grippers follow the newest row, but ignore changes smaller than the hysteresis."""
        close = np.abs(target - self._limiter.position) < self.settings.gripper_step
        return np.where(self._gripper & close, self._limiter.position, target)

    def _stale(self, now: float) -> bool:
        return bool(now - np.min(self._measured_at) > self.settings.stale_after)

    # ---- what others may look at -------------------------------------------------------------

    @property
    def reference(self) -> FloatArray:
        """Current reference ``(D,)``; before arming, the measured state."""
        return self.measured if self.mode is Mode.DISARMED else self._limiter.position

    @property
    def at_rest(self) -> bool:
        """Whether the reference has stopped moving."""
        return self.mode is Mode.DISARMED or self._limiter.at_rest

    def progress(self, now: float) -> tuple[int, float, float]:
        """Sequence of the chunk under way, rows of it consumed, seconds of rows left."""
        if self._chunk is None:
            return 0, 0.0, 0.0
        row = (now - self._start) / self._chunk.step_period
        row = float(np.clip(row, 0.0, self._chunk.horizon))
        duration = (self._chunk.horizon - 1) * self._chunk.step_period
        return self._chunk.sequence, row, max(0.0, self._start + duration - now)
