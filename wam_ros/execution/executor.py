"""The executor's state machine: chunks and measurements in, one command per tick out.

Everything is driven by the caller's clock, so the same code runs offline and in the live loop.

What holds for every input, at any loop rate (see `limiter` and `gate` for why):

* each command, and its first three differences over the period, stay inside the limits of the
  contract; a joint that starts outside its range moves inward only;
* at each tick a stop inside those limits exists;
* position, velocity and acceleration are continuous, at splices too;
* nothing is commanded before `arm`, and the first command is the measured state;
* without a usable chunk the reference rests at most ``horizon + 2 s`` after the last one, and
  `hold` or `estop` bring it to rest within the longest stop of any joint;
* the same inputs at the same times give the same commands.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from wam_ros.contract.data import ActionChunk, FloatArray
from wam_ros.contract.model import Contract
from wam_ros.execution.clearance import Space
from wam_ros.execution.gate import Gate
from wam_ros.execution.limiter import Limiter, State
from wam_ros.execution.motion import Motion
from wam_ros.execution.outlook import Outlook
from wam_ros.execution.place import check_chunk, ensemble, reanchor
from wam_ros.execution.readings import Readings
from wam_ros.execution.release import Release
from wam_ros.execution.settings import WARM_UP, Counters, Mode, Settings
from wam_ros.execution.splice import Joints, far_off, fit_in, untimely
from wam_ros.execution.velocity import VelocityKeys

__all__ = ["WARM_UP", "Counters", "Executor", "Mode", "Settings"]

_BEHIND = 0.4  # s that the motion may be behind its time line
_EASY, _STRAINED = 0.25, 0.5
"""Shares of the following error's limit: up to the first, lost time is caught up as fast as it may
be; from the second on, no faster than nobody notices."""


class Executor:
    """Follow chunks with the joints in ``contract.control_names``."""

    def __init__(
        self, contract: Contract, settings: Settings | None = None, space: Space | None = None
    ) -> None:
        self.contract = contract
        self.settings = settings or Settings()
        self.names = contract.control_names
        limits = [contract.joints[n].limits for n in self.names]
        self._joints = Joints(
            self.names,
            np.array([x.lower for x in limits]),
            np.array([x.upper for x in limits]),
            np.array([contract.group_of(n).role == "gripper" for n in self.names], dtype=bool),
        )
        self._gripper = self._joints.gripper
        self._arm = ~self._gripper
        self._idle = np.zeros(len(self.names), dtype=bool)
        self._period = 1.0 / contract.rates.control
        self._limiter = Limiter(limits, self._period)
        self._outlook = Outlook(limits, self._period)
        self._gate = Gate(self.names, limits, self._period, space)
        self._readings = Readings(self.names, self._gate, self.settings.stale_after)
        self._motion = Motion(self._limiter, self.settings, self._gripper, self._period)
        self._base = VelocityKeys(contract, self._period)
        self._seam = False
        self._newest_t0 = -np.inf
        self._last_tick = -np.inf
        self._release: Release | None = None
        self._window: tuple[Any, list[State]] = (None, [])
        self._then_disarm = self._gently = False
        self._paused = ""
        self.mode = Mode.DISARMED
        self.reason = "not armed yet"
        self.counters = Counters()

    def leave_alone(self, names: Collection[str]) -> None:
        """Joints that no output drives: their reference stays, whatever a chunk says of them.

        Nor are they expected where it is: somebody else may move them.
        """
        self._idle = np.array([n in names for n in self.names], dtype=bool)
        self._readings.restless = set(np.flatnonzero(self._idle).tolist())

    # ---- inputs ------------------------------------------------------------------------------

    def set_measured(self, values: dict[str, float], now: float, resting: bool = False) -> None:
        """Take joint positions by name; unknown names are ignored, NaN counts as not seen.

        ``resting`` tells what a simulation that has not begun knows: the arm stands still. Without
        it, `arm` wants to have seen that.
        """
        self._readings.take(values, now)
        if resting:
            self._readings.resting(now)

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
            if self._release is None and not self._then_disarm:  # why it disarms matters more
                self.reason = f"chunk {chunk.sequence} refused: {reason}"
        else:
            self.counters.accepted += 1
        return reason

    def reject(self, reason: str) -> None:
        """Count a chunk that could not even be read."""
        self.counters.rejected += 1
        self.reason = f"chunk refused: {reason}"

    def _splice(self, chunk: ActionChunk, now: float) -> str:
        s, pace = self.settings, self._motion.pace
        reason = untimely(chunk, now, self._newest_t0, s)
        if reason:
            return reason
        if self._release is not None or self._then_disarm:
            return f"the arm is about to be disarmed: {self.reason}"
        if self._readings.stale(now):
            return "joint states are stale"
        if self._paused:
            return f"held ({self._paused}) until an instruction is given or `arm` is called"
        tracking = self.mode is Mode.TRACKING
        if not tracking:
            pace.restart(now)
        time = pace.time
        # Where the arm held still while the policy thought (in sync, and before the first chunk
        # of an instruction) the rows start on arrival and none is lost; otherwise each row is due
        # at its stamp, less what was slowed since then.
        sync = chunk.cadence == "sync"
        first = bool(chunk.context_flags & WARM_UP) and not tracking
        start = time if sync or first else pace.at(chunk.t0)
        placed, reason = fit_in(chunk, self._joints, start, time, s)
        if reason:
            return reason
        due = placed.at(time)
        offset = np.where(self._gripper | self._idle, 0.0, self._limiter.position - due)
        old = self._motion.targets if tracking else None
        under_way = old.at(time) if old is not None else None
        due = np.where(self._idle, self._limiter.position, due)
        reason = far_off(offset, due, under_way, self._joints, s.reanchor_cap)
        if reason:
            return reason
        targets = ensemble(placed, old, 0.0 if sync else s.ensemble)
        # A grip is not mixed with older ones, and a joint that nobody drives stays.
        targets.rows[:, self._gripper] = placed.rows[:, self._gripper]
        targets.rows[:, self._idle] = self._limiter.position[self._idle]
        try:
            self._motion.plan(
                reanchor(targets, time, offset, s.fade), rest=s.smoothing if sync else None
            )
        except np.linalg.LinAlgError as err:  # the motion under way is untouched and goes on
            return str(err)
        self._motion.targets, self._motion.chunk = targets, chunk
        self._newest_t0 = chunk.t0
        self._base.take(chunk, start)
        self.counters.delay_rows = max(0.0, (time - start) / chunk.step_period)
        self._seam = True
        self.mode, self.reason = Mode.TRACKING, ""
        return ""

    # ---- commands from people ----------------------------------------------------------------

    def arm(self, now: float) -> str:
        """Take the measured state as reference and start holding; returns why not, or ''.

        Armed already, it ends a `pause`.
        """
        if self.mode is Mode.ESTOPPED:
            return "e-stop is latched: release it and call reset first"
        if self.mode is not Mode.DISARMED:
            self.resume()
            return ""
        unfit = self._readings.unfit(now)
        if unfit:
            return unfit
        self._limiter.reset(self.measured)
        self._gate.restart(self.measured)
        self._forget()
        self._readings.leapt()
        self._release, self._then_disarm, self._paused = None, False, ""
        self._newest_t0 = self._last_tick = -np.inf
        self.mode, self.reason = Mode.HOLDING, "armed, waiting for a chunk"
        return ""

    def disarm(self, reason: str) -> None:
        """Stop sending commands at once."""
        self._release, self._then_disarm = None, False
        if self.mode is not Mode.ESTOPPED:
            self._silence()
            self.mode, self.reason = Mode.DISARMED, reason

    def _silence(self) -> None:
        """Nothing is sent from here on, so nothing of the motion may be gone on with later."""
        self._forget()
        self._limiter.reset(self._limiter.position)
        self._base.halt()

    def hold(self, reason: str) -> None:
        """Decelerate to a hold and forget the chunk."""
        if self.mode is Mode.TRACKING:
            self._forget()
            self.mode, self.reason = Mode.STOPPING, reason

    def pause(self, reason: str) -> None:
        """Hold, and refuse chunks until `resume` or `arm`.

        The next chunk of a policy that was not told would else undo the hold at once.
        """
        self._paused = reason
        self.hold(reason)
        if self.mode is Mode.HOLDING:
            self.reason = reason

    def resume(self) -> None:
        """Take chunks again after a `pause`: an instruction was given."""
        self._paused = ""

    def stop_and_disarm(self, reason: str, gently: bool = False) -> None:
        """Stop, with the largest deceleration allowed or ``gently``, then disarm.

        Chunks that come meanwhile are refused. An arm that gives way after a following error goes
        on doing so, and is disarmed at its end anyway.
        """
        if self._release is not None:
            return
        if self.mode in (Mode.HOLDING, Mode.TRACKING, Mode.STOPPING):
            self._forget()
            self._release, self._then_disarm, self._gently = None, True, gently
            self.mode, self.reason = Mode.STOPPING, reason

    def clock_jumped(self, reason: str) -> None:
        """Hold, and take stamps as they now come."""
        self.hold(reason)
        self._newest_t0 = self._last_tick = -np.inf
        self._readings.clock_jumped()

    def estop(self, reason: str) -> None:
        """Stop with the largest deceleration allowed and latch; silent where it was silent."""
        self._forget()
        self._release = None
        self.mode, self.reason = Mode.ESTOPPED, reason

    def reset(self) -> str:
        """Release a latched e-stop; the robot stays disarmed until `arm`. Why not yet, or ''."""
        if self.mode is Mode.ESTOPPED:
            if not self.at_rest:
                return "the arm is still coming to rest"
            self.mode, self.reason = Mode.DISARMED, "reset, not armed"
        return ""

    def _forget(self) -> None:
        self._motion.forget()
        self._base.stop()

    # ---- the tick ----------------------------------------------------------------------------

    def tick(self, now: float) -> FloatArray | None:
        """Advance one control period; returns the command ``(D,)``, or None when silent."""
        self.counters.ticks += 1
        if self.mode is Mode.DISARMED:
            return None
        if self.mode is Mode.ESTOPPED:
            if self._readings.stale(now):
                self._silence()
            if self.at_rest:
                return None
        self._watch(now)
        if self.mode is Mode.DISARMED:
            return None
        predicted = self._predicted() if self._seam else None
        command = self._advance(now)
        self._base.advance(self._motion.pace.time if self.mode is Mode.TRACKING else None)
        self._last_tick = self._readings.commanded = now
        reason = self._gate.check(command)
        if reason:
            # The reference itself is wrong: nothing derived from it may be sent, a stop neither.
            self.estop(f"gate: {reason}")
            self._silence()
            return None
        if self.mode is not Mode.ESTOPPED:
            due = self._gate.space_due
            stop = self._limiter.stop_position() if due else None
            reason = self._gate.check_space(command, stop)
            if reason:
                self.estop(f"gate: {reason}")
        if predicted is not None and self._motion.chunk is not None:
            self._note_seam(self._motion.chunk, now, np.abs(command - predicted))
        return command

    def _predicted(self) -> FloatArray:
        lim, t = self._limiter, self._period
        return np.asarray(lim.position + t * (lim.velocity + 0.5 * t * lim.acceleration))

    def _note_seam(self, chunk: ActionChunk, now: float, jump: FloatArray) -> None:
        self._seam = False
        counters = self.counters
        worst = float(np.max(jump[self._arm], initial=0.0))
        counters.seam_jump_max = max(counters.seam_jump_max, worst)
        if not chunk.context_flags & WARM_UP:
            counters.latency.add(now - chunk.t0)

    def _watch(self, now: float) -> None:
        if now - self._last_tick > 0.1 and np.isfinite(self._last_tick):
            self._motion.pace.skip(now)
            self.hold(f"control loop stood still for {now - self._last_tick:.2f} s")
        elif self.mode is Mode.TRACKING and self._motion.pace.late(now) > _BEHIND:
            self._motion.pace.skip(now)
            self.hold("control loop misses too many cycles: is the machine overloaded?")
        leap = self._readings.leapt() if self.mode is not Mode.ESTOPPED else ""
        if leap:  # no motion explains that reading: nothing built on it can be trusted
            self.disarm(leap)
            return
        if self._readings.stale(now):
            self.hold("joint states are stale")
            return
        reference = self._limiter.position
        if np.count_nonzero(self._idle):
            reference = np.where(self._idle, self.measured, reference)
        error, share, reason = self._gate.following_error(reference, self.measured)
        self.counters.following_error = error
        self._motion.pace.headroom = min(max((_STRAINED - share) / (_STRAINED - _EASY), 0.0), 1.0)
        if reason and self._release is None and self.mode is not Mode.ESTOPPED:
            lost = self._gate.unexplained(reference, self.measured)
            if lost:
                self.disarm(lost)
                return
            # Give way first: an arm pressed against something must not spring when it is freed.
            self._forget()
            self._release = Release(self._limiter, self._readings.copy(), self._period)
            self.mode, self.reason = Mode.STOPPING, f"following error: {reason}"

    def _advance(self, now: float) -> FloatArray:
        limiter = self._limiter
        if self._release is not None:
            command = self._release.step(limiter)
            if self.at_rest:
                self.disarm(self.reason)
            elif self._release.overdue:  # brake, then
                self._release, self._then_disarm, self._gently = None, True, False
            return command
        if self.mode is not Mode.TRACKING or not self._motion.under_way:
            command = limiter.position if limiter.at_rest else limiter.brake(self._share)
            if self.mode is Mode.STOPPING and self.at_rest:
                self.mode = Mode.HOLDING
                if self._then_disarm:
                    self.disarm(self.reason)
            return command
        if self._motion.over:
            self._forget()
            self.reason = "rows ran out; waiting for a chunk"
            self.mode = Mode.HOLDING if self.at_rest else Mode.STOPPING
            return limiter.position if limiter.at_rest else limiter.brake(self._share)
        command = limiter.follow(*self._motion.step(now), self._gripper)
        self.counters.limiter_ticks += bool(np.count_nonzero(limiter.limited & self._arm))
        return command

    @property
    def _share(self) -> float:
        """Share of the limits that a stop may use now."""
        urgent = self.mode is Mode.ESTOPPED or (self._then_disarm and not self._gently)
        return 1.0 if urgent else self.settings.gentle

    # ---- what others may look at -------------------------------------------------------------

    @property
    def measured(self) -> FloatArray:
        """Newest joint positions ``(D,)``; NaN for a joint that was never seen."""
        return self._readings.values

    @property
    def reference(self) -> FloatArray:
        """Current reference ``(D,)``; before arming, the measured state."""
        return self.measured if self.mode is Mode.DISARMED else self._limiter.position

    @property
    def state(self) -> State:
        """Position, velocity and acceleration of the reference, ``(3, D)``."""
        return self._limiter.state

    def ahead(self, step: float, count: int) -> list[State]:
        """States expected of the reference every ``step`` seconds from now, ``count`` of them.

        For controllers that take a window: as if nothing new came, inside the limits, and a joint
        at rest stays.
        """
        asked = (self.counters.ticks, self.mode, id(self._motion.chunk), step, count)
        if self._window[0] != asked:  # several outputs ask for the same
            self._window = asked, self._expected(step, count)
        return self._window[1]

    def _expected(self, step: float, count: int) -> list[State]:
        if self.mode is Mode.TRACKING and self._motion.under_way:
            path = self._motion.ahead(np.arange(count + 1, dtype=np.float64) * step)
            sure = not self._motion.runs_out(count * step)
            return self._outlook.along(self._limiter, path, step, self._gripper, sure)
        if self._release is not None:
            return self._outlook.give_way(self._limiter, self._release.goal, step, count)
        return self._outlook.stop(self._limiter, self._share, step, count)

    @property
    def light_tick(self) -> bool:
        """Whether the next tick leaves out the distance checks."""
        idle = self.mode in (Mode.DISARMED, Mode.ESTOPPED)
        return idle or not self._gate.space_due

    @property
    def pace(self) -> float:
        """Present pace of the motion, 1 unless it is being slowed."""
        return self._motion.pace.rate if self.mode is Mode.TRACKING else 1.0

    @property
    def base(self) -> VelocityKeys:
        """Velocity keys of the action vector: what a mobile base is told."""
        return self._base

    @property
    def at_rest(self) -> bool:
        """Whether the reference has stopped moving, and the base."""
        return self.mode is Mode.DISARMED or (self._limiter.at_rest and self._base.at_rest)

    def progress(self, now: float) -> tuple[int, float, float]:
        """Sequence of the chunk under way, rows of it consumed, seconds of rows left."""
        return self._motion.progress()
