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

import enum
from dataclasses import dataclass, field

import numpy as np

from wam_ros.contract.data import ActionChunk, FloatArray
from wam_ros.contract.model import Contract
from wam_ros.execution.clearance import Space
from wam_ros.execution.gate import Gate
from wam_ros.execution.limiter import Limiter
from wam_ros.execution.metrics import Window
from wam_ros.execution.pace import Pace
from wam_ros.execution.place import Targets, check_chunk, ensemble, place, reanchor, savgol
from wam_ros.execution.plan import Path, State, fit_within
from wam_ros.execution.velocity import VelocityKeys

_REST = 1.95  # s after the last row within which the reference comes to rest
_STEADY = 0.5  # s without a jump in the readings before arming
_BEHIND = 0.4  # s that the motion may be behind its time line
_EARLY = 0.5  # s that a stamp may lie ahead of our clock
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
        Pace 0..1 down to which motion is slowed while no fresh chunk comes; 1 never slows.
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


class Executor:
    """Follow chunks with the joints in ``contract.control_names``."""

    def __init__(
        self, contract: Contract, settings: Settings | None = None, space: Space | None = None
    ) -> None:
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
        self._limiter = Limiter(limits, self._period)
        self._gate = Gate(self.names, limits, self._period, space)
        self._pace = Pace(self._period)
        self._base = VelocityKeys(contract, self._period)
        self._index = {n: i for i, n in enumerate(self.names)}
        self.measured = np.full(len(self.names), np.nan)
        self._measured_at = np.full(len(self.names), -np.inf)
        self._leap, self._leap_at, self._leap_told = "", -np.inf, True
        self._path: Path | None = None
        self._targets: Targets | None = None
        self._chunk: ActionChunk | None = None
        self._resting = False
        self._seam = False
        self._newest_t0 = -np.inf
        self._last_tick = -np.inf
        self._here: State | None = None
        self._release: FloatArray | None = None
        self._release_until = 0.0
        self._then_disarm = False
        self.mode = Mode.DISARMED
        self.reason = "not armed yet"
        self.counters = Counters()

    # ---- inputs ------------------------------------------------------------------------------

    def set_measured(self, values: dict[str, float], now: float) -> None:
        """Take joint positions by name; unknown names are ignored, NaN counts as not seen."""
        for name, value in values.items():
            i = self._index.get(name)
            if i is not None and np.isfinite(value):
                leap = self._gate.leap(i, value - self.measured[i], now - self._measured_at[i])
                if leap:
                    self._leap, self._leap_at, self._leap_told = leap, now, False
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
        age = now - chunk.t0
        if age > s.chunk_age:
            return f"it is {age:.2f} s old, more than {s.chunk_age} s"
        if age < -_EARLY:
            return f"its stamp is {-age:.2f} s ahead; are the machines' clocks in step?"
        if chunk.t0 <= self._newest_t0:
            return "it is not newer than the last one"
        if self._release is not None or self._then_disarm:
            return f"the arm is about to be disarmed: {self.reason}"
        if self._stale(now):
            return "joint states are stale"
        if self.mode is not Mode.TRACKING:
            self._pace.restart(now)
        time = self._pace.time
        # Where the arm held still while the policy thought (in sync, and before the first chunk
        # of an instruction) the rows start on arrival and none is lost; otherwise each row is due
        # at its stamp, less what was slowed since then.
        sync = chunk.cadence == "sync"
        first = bool(chunk.context_flags & WARM_UP) and self.mode is not Mode.TRACKING
        start = time if sync or first else self._pace.at(chunk.t0)
        placed, excess = place(chunk, self.names, start, self._lower, self._upper)
        worst = int(np.argmax(excess))
        if excess[worst] > s.reanchor_cap:
            return f"a row lies {excess[worst]:.3g} beyond the range of {self.names[worst]}"
        if placed.times[-1] <= time + chunk.step_period:
            return f"all {chunk.horizon} rows lie in the past"
        if s.savgol:
            smooth = np.clip(savgol(placed.rows), self._lower, self._upper)
            placed = Targets(placed.times, smooth, placed.step)
        offset = np.where(self._gripper, 0.0, self._limiter.position - placed.at(time))
        tracking = self._targets if self.mode is Mode.TRACKING else None
        beyond = self._far_off(offset, placed.at(time), tracking)
        if beyond:
            return beyond
        self._targets = ensemble(placed, tracking, 0.0 if sync else s.ensemble)
        self._chunk, self._newest_t0 = chunk, chunk.t0
        targets = reanchor(self._targets, time, offset, s.fade)
        self._plan(targets, rest=s.smoothing if sync else None)
        self._base.take(chunk, start)
        self.counters.delay_rows = max(0.0, (time - start) / chunk.step_period)
        self._seam = True
        self.mode, self.reason = Mode.TRACKING, ""
        return ""

    def _far_off(self, offset: FloatArray, due: FloatArray, under_way: Targets | None) -> str:
        """Why a chunk whose row ``due`` is ``offset`` from the reference is too far off, or ''.

        A reference that still catches up with the rows under way may be further off, twice as far
        at most, if the new rows go on from those: refused, it would follow the older ones anyway.
        """
        cap = self.settings.reanchor_cap
        away = np.abs(offset)
        if under_way is not None:
            step = np.abs(due - under_way.at(self._pace.time))
            away = np.where(away <= 2.0 * cap, np.minimum(away, step), away)
        worst = int(np.argmax(np.where(self._gripper, 0.0, away)))
        if self._gripper[worst] or away[worst] <= cap:
            return ""
        return (
            f"{self.names[worst]} would start {abs(offset[worst]):.3f} away from the "
            f"reference, more than {cap}"
        )

    def _plan(self, targets: Targets, rest: float | None = None) -> None:
        """Fit the path from the present reference through what lies ahead of ``targets``.

        With ``rest`` it comes to rest on the last row, that many seconds after the row is due:
        whoever brakes evenly over a stretch takes twice as long for it.
        """
        lim, pace = self._limiter, self._pace
        # In path time: undo the pace, which is 1 unless motion is being slowed.
        rate = max(pace.rate, 0.2)
        velocity = lim.velocity / rate
        state = (lim.position, velocity, (lim.acceleration - pace.slope * velocity) / rate**2)
        if rest is not None:
            targets = targets.held(rest)
        # A knot very close to the splice would only repeat it.
        ahead = targets.after(pace.time + 0.3 * targets.step)
        self._path = fit_within(
            pace.time,
            state,
            (ahead.times, ahead.rows),
            self.settings.smoothing,
            (lim.v_max, lim.a_max, lim.j_max),
            rest=rest is not None,
        )
        self._resting = rest is not None
        self._here = None

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
        if now - self._leap_at < _STEADY:
            return f"{self._leap}; readings must be steady for {_STEADY} s"
        beyond = self._gate.far_outside(self.measured)
        if beyond:
            return beyond
        self._limiter.reset(self.measured)
        self._gate.restart(self.measured)
        self._forget()
        self._leap_told, self._release, self._then_disarm = True, None, False
        self._newest_t0 = self._last_tick = -np.inf
        self.mode, self.reason = Mode.HOLDING, "armed, waiting for a chunk"
        return ""

    def disarm(self, reason: str) -> None:
        """Stop sending commands at once."""
        self._forget()
        self._release, self._then_disarm = None, False
        if self.mode is not Mode.ESTOPPED:
            self.mode, self.reason = Mode.DISARMED, reason

    def hold(self, reason: str) -> None:
        """Decelerate to a hold and forget the chunk."""
        if self.mode is Mode.TRACKING:
            self._forget()
            self.mode, self.reason = Mode.STOPPING, reason

    def stop_and_disarm(self, reason: str) -> None:
        """Stop with the largest deceleration allowed, then disarm."""
        if self.mode in (Mode.HOLDING, Mode.TRACKING, Mode.STOPPING):
            self._forget()
            self._release, self._then_disarm = None, True
            self.mode, self.reason = Mode.STOPPING, reason

    def clock_jumped(self, reason: str) -> None:
        """Hold, and take stamps as they now come."""
        self.hold(reason)
        self._newest_t0 = self._last_tick = self._leap_at = -np.inf
        self._measured_at[:] = -np.inf

    def estop(self, reason: str) -> None:
        """Stop with the largest deceleration allowed and latch."""
        self._forget()
        self._release = None
        self.mode, self.reason = Mode.ESTOPPED, reason

    def reset(self) -> None:
        """Release a latched e-stop; the robot stays disarmed until `arm`."""
        if self.mode is Mode.ESTOPPED:
            self.mode, self.reason = Mode.DISARMED, "reset, not armed"

    def _forget(self) -> None:
        self._path = self._targets = self._chunk = self._here = None
        self._base.stop()

    # ---- the tick ----------------------------------------------------------------------------

    def tick(self, now: float) -> FloatArray | None:
        """Advance one control period; returns the command ``(D,)``, or None when silent."""
        self.counters.ticks += 1
        if self.mode is Mode.DISARMED:
            return None
        if self.mode is Mode.ESTOPPED and (self._limiter.at_rest or self._stale(now)):
            return None
        self._watch(now)
        if self.mode is Mode.DISARMED:
            return None
        predicted = self._predicted()
        command = self._advance(now)
        self._base.advance(self._pace.time if self.mode is Mode.TRACKING else None)
        self._last_tick = now
        reason = self._gate.check(command)
        if reason:
            # The reference itself is wrong: nothing derived from it may be sent, a stop neither.
            self.estop(f"gate: {reason}")
            self._limiter.reset(self._limiter.position)
            return None
        if self.mode is not Mode.ESTOPPED:
            due = self._gate.space_due
            stop = self._limiter.stop_position() if due else None
            reason = self._gate.check_space(command, stop)
            if reason:
                self.estop(f"gate: {reason}")
        if self._seam and self._chunk is not None:
            self._note_seam(now, np.abs(command - predicted))
        return command

    def _predicted(self) -> FloatArray:
        lim, t = self._limiter, self._period
        return np.asarray(lim.position + t * (lim.velocity + 0.5 * t * lim.acceleration))

    def _note_seam(self, now: float, jump: FloatArray) -> None:
        self._seam = False
        counters = self.counters
        worst = float(np.max(jump[~self._gripper], initial=0.0))
        counters.seam_jump_max = max(counters.seam_jump_max, worst)
        assert self._chunk is not None
        if not self._chunk.context_flags & WARM_UP:
            counters.latency.add(now - self._chunk.t0)

    def _watch(self, now: float) -> None:
        if now - self._last_tick > 0.1 and np.isfinite(self._last_tick):
            self._pace.skip(now)
            self.hold(f"control loop stood still for {now - self._last_tick:.2f} s")
        elif self.mode is Mode.TRACKING and self._pace.late(now) > _BEHIND:
            self._pace.skip(now)
            self.hold("control loop misses too many cycles: is the machine overloaded?")
        if not self._leap_told and self.mode is not Mode.ESTOPPED:
            # A reading that no motion explains: nothing built on it can be trusted.
            self._leap_told = True
            self.disarm(self._leap)
            return
        if self._stale(now):
            self.hold("joint states are stale")
            return
        error, reason = self._gate.following_error(self._limiter.position, self.measured)
        self.counters.following_error = error
        if reason and self._release is None and self.mode is not Mode.ESTOPPED:
            # Give way first: an arm pressed against something must not spring when it is freed.
            self._forget()
            self._release, self._release_until = self.measured.copy(), now + 1.0
            self.mode, self.reason = Mode.STOPPING, f"following error: {reason}"

    def _advance(self, now: float) -> FloatArray:
        limiter = self._limiter
        if self._release is not None:
            goal = (self._release, np.zeros_like(self._release), np.zeros_like(self._release))
            command = limiter.follow(goal, goal, np.ones(len(self.names), dtype=bool))
            if limiter.at_rest or now >= self._release_until:
                self.disarm(self.reason)
            return command
        if self.mode is not Mode.TRACKING or self._path is None:
            command = limiter.position if limiter.at_rest else limiter.brake(self._share)
            if self.mode is Mode.STOPPING and limiter.at_rest:
                self.mode = Mode.HOLDING
                if self._then_disarm:
                    self.disarm(self.reason)
            return command
        if self._pace.time >= self._path.end and (limiter.at_rest or self._must_stop()):
            self._forget()
            self.reason = "rows ran out; waiting for a chunk"
            # A joint that trails its path, or leans on the edge of its range, is stopped.
            self.mode = Mode.HOLDING if limiter.at_rest else Mode.STOPPING
            return limiter.position if limiter.at_rest else limiter.brake(self._share)
        self._mind_the_end()
        here = self._here or self._sample()
        self._pace.advance(now, self._wanted_pace())
        there = self._here = self._sample()
        command = limiter.follow(here, there, self._gripper)
        self.counters.limiter_ticks += int((limiter.limited & ~self._gripper).any())
        return command

    def _must_stop(self) -> bool:
        """Whether a joint that still trails its path has just the time left that a stop takes."""
        assert self._targets is not None
        left = self._targets.end + _REST - self._pace.time
        return self._limiter.stop_time(self.settings.gentle) >= left

    @property
    def _share(self) -> float:
        """Share of the limits that a stop may use now."""
        urgent = self.mode is Mode.ESTOPPED or self._then_disarm
        return 1.0 if urgent else self.settings.gentle

    def _sample(self) -> State:
        """The path's state now, per second of the clock; grippers have their own way."""
        assert self._path is not None and self._targets is not None
        pace = self._pace
        p, v, a = self._path.sample(pace.time)
        if pace.rate != 1.0 or pace.slope != 0.0:
            v, a = v * pace.rate, a * pace.rate**2 + v * pace.slope
        if self._gripper.any():
            wanted = self._targets.at(pace.time)
            now = self._limiter.position
            close = np.abs(wanted - now) < self.settings.gripper_step
            p = np.where(self._gripper, np.where(close, now, wanted), p)
        return p, v, a

    def _mind_the_end(self) -> None:
        """When rows are about to run out, replan what is left of them so that it ends at rest."""
        assert self._path is not None and self._targets is not None
        left = self._targets.end - self._pace.time
        if self._resting or left > 1.0:
            return
        half = 0.5 * self._limiter.stop_time(self.settings.gentle) + self._period
        if left <= half:
            self._plan(self._targets, rest=half)

    def _wanted_pace(self) -> float:
        """Below 1 while less than a third of the rows is left and no chunk has come."""
        if self.settings.slowest >= 1.0 or self._chunk is None or self._targets is None:
            return 1.0
        third = self._chunk.horizon * self._chunk.step_period / 3.0
        share = (self._targets.end - self._pace.time) / third
        return float(np.clip(share, self.settings.slowest, 1.0))

    def _stale(self, now: float) -> bool:
        return bool(now - self._measured_at.min() > self.settings.stale_after)

    # ---- what others may look at -------------------------------------------------------------

    @property
    def reference(self) -> FloatArray:
        """Current reference ``(D,)``; before arming, the measured state."""
        return self.measured if self.mode is Mode.DISARMED else self._limiter.position

    @property
    def state(self) -> State:
        """Position, velocity and acceleration of the reference, each ``(D,)``."""
        return self._limiter.position, self._limiter.velocity, self._limiter.acceleration

    def ahead(self, times: FloatArray) -> list[State]:
        """Reference expected ``times`` seconds from now, for controllers that take a window.

        Follows the path as if nothing new came; a joint at rest stays.
        """
        position = self._limiter.position
        result: list[State] = []
        if self.mode is not Mode.TRACKING or self._path is None:
            stop = self._limiter.stopping(self._share)
            for t in times:
                x, v, a = stop.at(float(t))
                result.append((position + x, v, a))
            return result
        here = self._path.sample(self._pace.time)
        for t in times:
            p, v, a = self._path.sample(self._pace.time + float(t))
            # Relative to where the reference really is, which a limited joint may trail.
            p = np.where(self._gripper, position, position + p - here[0])
            v, a = (np.where(self._gripper, 0.0, x) for x in (v, a))
            result.append((np.clip(p, self._lower, self._upper), v, a))
        return result

    @property
    def light_tick(self) -> bool:
        """Whether the next tick leaves out the distance checks."""
        return not self._gate.space_due

    @property
    def pace(self) -> float:
        """Present pace of the motion, 1 unless it is being slowed."""
        return self._pace.rate if self.mode is Mode.TRACKING else 1.0

    @property
    def base(self) -> VelocityKeys:
        """Velocity keys of the action vector: what a mobile base is told."""
        return self._base

    @property
    def at_rest(self) -> bool:
        """Whether the reference has stopped moving."""
        return self.mode is Mode.DISARMED or self._limiter.at_rest

    def progress(self, now: float) -> tuple[int, float, float]:
        """Sequence of the chunk under way, rows of it consumed, seconds of rows left."""
        if self._chunk is None or self._targets is None:
            return 0, 0.0, 0.0
        time = self._pace.time
        row = (time - self._targets.times[0]) / self._chunk.step_period
        row = float(np.clip(row, 0.0, self._chunk.horizon))
        return self._chunk.sequence, row, max(0.0, self._targets.end - time)
