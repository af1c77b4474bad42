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
State = tuple[FloatArray, FloatArray, FloatArray]
"""Position, velocity and acceleration, each ``(D,)``."""

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


class Limiter:
    """Own the reference state and move it within ``limits``.

    Attributes
    ----------
    position, velocity, acceleration
        Current reference, each ``(D,)``.
    limited
        Joints ``(D,)`` that the last step could not give the jerk it wanted.
    """

    def __init__(self, limits: list[Limits], period: float) -> None:
        n = len(limits)
        self._range = (
            np.array([x.lower for x in limits]) + _EDGE,
            np.array([x.upper for x in limits]) - _EDGE,
        )
        self.v_max = _WITHIN * np.array([x.velocity for x in limits])
        self.a_max = _WITHIN * np.array([x.acceleration for x in limits])
        self.j_max = _WITHIN * np.array([x.jerk for x in limits])
        self._dt = period
        self._rate = min(_RATE, _STEADY / period)
        self._planners = [_Planner(x, period) for x in limits]
        self.limited = np.zeros(n, dtype=bool)
        self.reset(np.zeros(n))

    def reset(self, position: FloatArray) -> None:
        """Take ``position`` ``(D,)`` as the reference, at rest.

        A joint outside its range may only move inward: its limit is where it stands.
        """
        self.position = np.array(position, dtype=np.float64)
        self.velocity = np.zeros(len(self.position))
        self.acceleration = np.zeros(len(self.position))
        self._lower = np.minimum(self._range[0], self.position)
        self._upper = np.maximum(self._range[1], self.position)
        self._outside = self._is_outside()

    def start_as(self, other: Limiter, still: Flags) -> None:
        """Take the state that another limiter of the same joints has; ``still`` ones at rest."""
        self.position = other.position
        self.velocity = np.where(still, 0.0, other.velocity)
        self.acceleration = np.where(still, 0.0, other.acceleration)
        self._lower, self._upper, self._outside = other._lower, other._upper, other._outside

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
        jerk = (there[2] - here[2]) / self._dt
        rate = self._rate
        jerk = jerk + rate * (
            3.0 * (here[2] - self.acceleration)
            + rate * (3.0 * (here[1] - self.velocity) + rate * (here[0] - self.position))
        )
        # No more than brings the acceleration to its limit, so that between ticks it stays inside.
        low = np.maximum(-self.j_max, (-self.a_max - self.acceleration) / self._dt)
        high = np.minimum(self.j_max, (self.a_max - self.acceleration) / self._dt)
        beyond = (jerk < low) | (jerk > high)
        self._take(self._integrate(np.clip(jerk, low, high)), beyond, there, direct)
        return self.position

    def brake(self, share: float = 1.0) -> FloatArray:
        """Advance one period of a stop with ``share`` of the limits; returns the reference.

        A gentle stop that would leave the range is cut short by the fastest one.
        """
        wanted = self._braked(share)
        unsafe = ~self._safe(*wanted) if share < 1.0 else np.zeros(len(wanted[0]), dtype=bool)
        self._accept(self._between(self._braked(), wanted, unsafe) if unsafe.any() else wanted)
        return self.position

    def _integrate(self, jerk: FloatArray) -> State:
        t = self._dt
        p, v, a = self.position, self.velocity, self.acceleration
        return (
            p + t * (v + t * (0.5 * a + t * jerk / 6.0)),
            v + t * (a + 0.5 * t * jerk),
            a + t * jerk,
        )

    def _braked(self, share: float = 1.0) -> State:
        x, v, a = self.stopping(share).at(self._dt)
        return self.position + x, v, a

    def _take(self, wanted: State, beyond: Flags, there: State, direct: Flags) -> None:
        p, v, a = wanted
        for i in np.flatnonzero(beyond | direct):
            state = (float(self.position[i]), float(self.velocity[i]), float(self.acceleration[i]))
            target = (float(there[0][i]), float(there[1][i]), float(there[2][i]))
            bounds = (float(self._lower[i]), float(self._upper[i]))
            planner = self._planners[i]
            p[i], v[i], a[i] = (
                planner.go(state, target[0], bounds) if direct[i] else planner.chase(state, target)
            )
        unsafe = ~self._safe(p, v, a)
        self.limited = beyond | unsafe
        if unsafe.any():
            p, v, a = self._between(self._braked(), (p, v, a), unsafe)
        self._accept((p, v, a))

    def _accept(self, state: State) -> None:
        self.position, self.velocity, self.acceleration = state
        # Rounding, at most: what would leave the range was not accepted as safe.
        self.position = np.clip(self.position, self._lower, self._upper)
        if self._outside:
            low, high = self.stopping().reach()
            self._lower = np.clip(self.position + low, self._lower, self._range[0])
            self._upper = np.clip(self.position + high, self._range[1], self._upper)
            self._outside = self._is_outside()

    def _safe(self, p: FloatArray, v: FloatArray, a: FloatArray) -> Flags:
        """Which joints ``(D,)`` could still stop inside every limit from this state."""
        # Far from every limit a bound will do: take the acceleration away, then stop from `top`.
        top = np.abs(v) + 0.5 * a * a / self.j_max
        far = top * (0.5 * top / self.a_max + 2.0 * self.a_max / self.j_max)
        clear = (
            (np.abs(a) <= self.a_max)
            & (top <= self.v_max)
            & (p - far >= self._lower)
            & (p + far <= self._upper)
        )
        if clear.all():
            return clear
        profile = stop(v, a, self.a_max, self.j_max)
        low, high = profile.reach()
        return np.asarray(
            (np.abs(a) <= self.a_max * (1.0 + 1e-9))
            & (profile.peak_speed() <= self.v_max * (1.0 + 1e-9))
            & (p + low >= self._lower - 1e-12)
            & (p + high <= self._upper + 1e-12)
        )

    def _between(self, safe: State, wanted: State, unsafe: Flags) -> State:
        # Any mixture of two motions inside the jerk limit is one, too.
        share, step = np.where(unsafe, 0.0, 1.0), 0.5
        for _ in range(_HALVINGS):
            trial = np.where(unsafe, share + step, 1.0)
            ok = self._safe(*(s + trial * (w - s) for s, w in zip(safe, wanted)))
            share = np.where(ok, trial, share)
            step *= 0.5
        mix = [np.where(unsafe, s + share * (w - s), w) for s, w in zip(safe, wanted)]
        return mix[0], mix[1], mix[2]


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
