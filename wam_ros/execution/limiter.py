"""The last word on motion: a reference that never leaves its limits and can always stop.

The reference is moved by choosing each joint's jerk once a tick. A joint that is on its path gets
the path's own jerk, so a path inside the limits passes unchanged. A joint that cannot be on its
path (the path asks for too much, or starts elsewhere) catches up at the limits, and a gripper goes
for its target; Ruckig plans both.

A new state is taken only if the fastest stop from it (`stop`) stays inside position and velocity
limits. The state before was accepted by the same rule, so its own stop is always there to fall
back on: if the wanted state is not safe, the reference takes the state closest to it, on the line
between wanted state and stop, that is. Hence at every tick a stop inside all limits exists.
"""

from __future__ import annotations

import contextlib

import numpy as np
from numpy.typing import NDArray
from ruckig import ControlInterface, InputParameter, Result, Ruckig, RuckigError, Trajectory

from wam_ros.contract.data import FloatArray
from wam_ros.contract.model import Limits
from wam_ros.execution.stop import Stop, stop

Flags = NDArray[np.bool_]
State = FloatArray
"""Position, velocity and acceleration, ``(3, D)``."""

Scalars = tuple[float, float, float]

_EDGE = 1e-6  # rad or m, room for rounding along the edge of the range
_WITHIN = 0.999
"""Share of the limits used: between ticks, where nothing is checked, a speed may swell a little."""
_HALVINGS = 8
_CLOSE = 6.0
"""Rate (1/s) at which a joint that is off its path closes the distance when it is small."""
_RATE, _STEADY = 40.0, 0.5
"""Triple pole (1/s) of the law that keeps a joint on its path (errors there are rounding only), and
the largest product of pole and period: at 0.75 the sampled law oscillates and grows."""


def every(flags: Flags) -> bool:
    """As ``flags.all()``, which takes five times as long for a row of joints."""
    return np.count_nonzero(flags) == flags.size


class Limiter:
    """Own the reference state and move it within ``limits``.

    Attributes
    ----------
    state
        Current reference ``(3, D)``: `position`, `velocity`, `acceleration`. Replaced every
        period, never changed.
    limits
        Largest velocity, acceleration and jerk ``(3, D)`` used: `v_max`, `a_max`, `j_max`.
    limited
        Joints ``(D,)`` that the last step could not give the jerk it wanted.
    """

    def __init__(self, limits: list[Limits], period: float) -> None:
        n = len(limits)
        self._range = (
            np.array([x.lower for x in limits]) + _EDGE,
            np.array([x.upper for x in limits]) - _EDGE,
        )
        self.limits = _WITHIN * np.array(
            [[x.velocity, x.acceleration, x.jerk] for x in limits]
        ).T.reshape(3, n)
        self.v_max, self.a_max, self.j_max = self.limits
        self._dt = t = period
        rate = min(_RATE, _STEADY / period)
        # Rows of 20 joints are short: it is the number of numpy's calls that costs, so whatever
        # does not change is worked out here and a step is a product of two small matrices.
        self._law = np.array([rate**3, 3.0 * rate**2, 3.0 * rate])
        self._drift = np.array([[1.0, t, 0.5 * t * t], [0.0, 1.0, t], [0.0, 0.0, 1.0]])
        self._push = np.array([[t**3 / 6.0], [0.5 * t * t], [t]])
        self._j_min = -self.j_max
        self._a_room = self.a_max / t
        self._per_jerk, self._per_a = 0.5 / self.j_max, 0.5 / self.a_max
        self._onset = 2.0 * self.a_max / self.j_max
        self._planners = [_Planner(x, period) for x in limits]
        self.limited = np.zeros(n, dtype=bool)
        self.reset(np.zeros(n))

    def reset(self, position: FloatArray) -> None:
        """Take ``position`` ``(D,)`` as the reference, at rest.

        A joint outside its range may only move inward: its limit is where it stands.
        """
        self.state = np.zeros((3, len(position)))
        self.state[0] = position
        self._lower = np.minimum(self._range[0], self.position)
        self._upper = np.maximum(self._range[1], self.position)
        self._outside = self._is_outside()

    def start_as(self, other: Limiter, still: Flags) -> None:
        """Take the state that another limiter of the same joints has; ``still`` ones at rest."""
        self.state = other.state.copy()
        self.state[1:, still] = 0.0
        self._lower, self._upper, self._outside = other._lower, other._upper, other._outside

    @property
    def position(self) -> FloatArray:
        """Present position ``(D,)``."""
        return self.state[0]

    @property
    def velocity(self) -> FloatArray:
        """Present velocity ``(D,)``."""
        return self.state[1]

    @property
    def acceleration(self) -> FloatArray:
        """Present acceleration ``(D,)``."""
        return self.state[2]

    @property
    def range(self) -> tuple[FloatArray, FloatArray]:
        """Least and largest position ``(D,)`` that each joint may have now."""
        return self._lower, self._upper

    def _is_outside(self) -> bool:
        # A joint that stands on the edge itself, such as an open gripper, is inside.
        low, high = self._range
        return bool(np.any((self._lower < low - 2 * _EDGE) | (self._upper > high + 2 * _EDGE)))

    @property
    def at_rest(self) -> bool:
        """Whether the reference has stopped."""
        return bool(np.abs(self.velocity).max() < 1e-7 and np.abs(self.acceleration).max() < 1e-6)

    def stopping(self, share: float = 1.0) -> Stop:
        """The stop from here with ``share`` of the acceleration and jerk limits."""
        return stop(self.velocity, self.acceleration, share * self.a_max, share * self.j_max)

    def stop_time(self, share: float = 1.0) -> float:
        """Longest time any joint needs for that stop, in seconds."""
        return float(np.max(self.stopping(share).duration))

    def stop_position(self) -> FloatArray:
        """Where the fastest stop from here would end, ``(D,)``."""
        return np.asarray(self.position + self.stopping().at(np.inf)[0])

    # ---- one period ----------------------------------------------------------------------------

    def follow(self, here: State, there: State, direct: Flags) -> FloatArray:
        """Advance one period along a path that is ``here`` now and ``there`` a period later.

        ``direct`` ``(D,)`` marks joints (grippers) that go for the position of ``there`` by the
        shortest motion; so does a joint outside its range. Returns the new reference.
        """
        if self._outside:
            direct = direct | (self.position < self._range[0]) | (self.position > self._range[1])
        wanted = (there[2] - here[2]) / self._dt + self._law @ (here - self.state)
        # No more than brings the acceleration to its limit, so that between ticks it stays inside.
        used = self.acceleration / self._dt
        low = np.maximum(self._j_min, -self._a_room - used)
        high = np.minimum(self.j_max, self._a_room - used)
        jerk = np.minimum(np.maximum(wanted, low), high)
        step = self._drift @ self.state + self._push * jerk
        self._take(step, jerk != wanted, there, direct)
        return self.position

    def brake(self, share: float = 1.0) -> FloatArray:
        """Advance one period of a stop with ``share`` of the limits; returns the reference.

        A gentle stop that would leave the range is cut short by the fastest one.
        """
        wanted = self._braked(share)
        if share < 1.0:
            safe = self._safe(wanted)
            if not every(safe):
                wanted = self._between(self._braked(), wanted, ~safe)
        self._accept(wanted)
        return self.position

    def _braked(self, share: float = 1.0) -> State:
        braked = np.stack(self.stopping(share).at(self._dt))
        braked[0] += self.position
        return braked

    def _take(self, wanted: State, beyond: Flags, there: State, direct: Flags) -> None:
        for i in (beyond | direct).nonzero()[0]:
            p, v, a = self.state[:, i].tolist()
            x, speed, bend = there[:, i].tolist()
            planner = self._planners[i]
            if direct[i]:
                bounds = (float(self._lower[i]), float(self._upper[i]))
                wanted[:, i] = planner.go((p, v, a), x, bounds)
            else:
                wanted[:, i] = planner.chase((p, v, a), (x, speed, bend))
        safe = self._safe(wanted)
        self.limited = beyond
        if not every(safe):
            self.limited = beyond | ~safe
            wanted = self._between(self._braked(), wanted, ~safe)
        self._accept(wanted)

    def _accept(self, state: State) -> None:
        # Rounding, at most: what would leave the range was not accepted as safe.
        state[0] = np.minimum(np.maximum(state[0], self._lower), self._upper)
        self.state = state
        if self._outside:
            low, high = self.stopping().reach()
            self._lower = np.clip(self.position + low, self._lower, self._range[0])
            self._upper = np.clip(self.position + high, self._range[1], self._upper)
            self._outside = self._is_outside()

    def _safe(self, state: State) -> Flags:
        """Which joints ``(D,)`` could still stop inside every limit from ``state``."""
        p, v, a = state
        # Far from every limit a bound will do: take the acceleration away, then stop from `top`.
        top = np.abs(v) + self._per_jerk * a * a
        far = top * (self._per_a * top + self._onset)
        clear = (
            (np.abs(a) <= self.a_max)
            & (top <= self.v_max)
            & (far <= np.minimum(p - self._lower, self._upper - p))
        )
        turning = self._turning(p, v, a) if self._outside else None
        if turning is not None:
            clear &= ~turning
        if every(clear):
            return clear
        profile = stop(v, a, self.a_max, self.j_max)
        low, high = profile.reach()
        safe = (
            (np.abs(a) <= self.a_max * (1.0 + 1e-9))
            & (profile.peak_speed() <= self.v_max * (1.0 + 1e-9))
            & (p + low >= self._lower - 1e-12)
            & (p + high <= self._upper + 1e-12)
        )
        return np.asarray(safe if turning is None else safe & ~turning)

    def _turning(self, p: FloatArray, v: FloatArray, a: FloatArray) -> Flags:
        """Which joints are outside their range and would turn outward, if only in their stop."""
        drift = v + self._per_jerk * a * np.abs(a)
        low, high = self._range
        return ((p > high) & (drift > 1e-12)) | ((p < low) & (drift < -1e-12))

    def _between(self, safe: State, wanted: State, unsafe: Flags) -> State:
        # Any mixture of two motions inside the jerk limit is one, too.
        share, step = np.where(unsafe, 0.0, 1.0), 0.5
        for _ in range(_HALVINGS):
            trial = np.where(unsafe, share + step, 1.0)
            ok = self._safe(safe + trial * (wanted - safe))
            share = np.where(ok, trial, share)
            step *= 0.5
        return np.where(unsafe, safe + share * (wanted - safe), wanted)


class _Planner:
    """Shortest jerk-limited motions of one joint, by Ruckig, one period at a time."""

    def __init__(self, limits: Limits, period: float) -> None:
        self._ruckig = Ruckig(1, period)
        self._motion = Trajectory(1)
        self._v, self._a, self._j = (
            _WITHIN * x for x in (limits.velocity, limits.acceleration, limits.jerk)
        )
        self._point, self._speed = InputParameter(1), InputParameter(1)
        for request in (self._point, self._speed):
            request.max_velocity = [self._v]
            request.max_acceleration = [self._a]
            request.max_jerk = [self._j]
        self._speed.control_interface = ControlInterface.Velocity
        self._dt = period

    def go(self, state: Scalars, goal: float, bounds: tuple[float, float]) -> Scalars:
        """Towards rest at ``goal``."""
        if state == (goal, 0.0, 0.0) and bounds[0] <= goal <= bounds[1]:
            return state  # most of the time a gripper has nothing to do
        self._point.target_position = [min(max(goal, bounds[0]), bounds[1])]
        return self._step(self._point, state)

    def chase(self, state: Scalars, target: Scalars) -> Scalars:
        """Towards a moving target.

        The speed aimed at is the target's and what closes the distance: never more than can be
        taken away again before getting there. (The shortest motion to a moving target would back
        off first to gain speed.)
        """
        away = target[0] - state[0]
        closing = min(_CLOSE * abs(away), (self._a * abs(away)) ** 0.5)
        speed = target[1] + (closing if away > 0.0 else -closing)
        self._speed.target_velocity = [min(max(speed, -self._v), self._v)]
        return self._step(self._speed, state)

    def _step(self, request: InputParameter, state: Scalars) -> Scalars:
        request.current_position = [state[0]]
        request.current_velocity = [state[1]]
        request.current_acceleration = [state[2]]
        # Not `update`: that walks on along an older plan when the request happens to be the same.
        # It raises for a few targets it cannot solve numerically: then the joint slows down.
        with contextlib.suppress(RuckigError):
            if self._ruckig.calculate(request, self._motion) in (Result.Working, Result.Finished):
                p, v, a = self._motion.at_time(self._dt)
                return p[0], v[0], a[0]
        x, v, a = stop(*(np.array([x]) for x in (state[1], state[2], self._a, self._j))).at(
            self._dt
        )
        return state[0] + float(x[0]), float(v[0]), float(a[0])
