"""The last word on motion: a reference that never leaves its limits and can always stop.

Each tick Ruckig plans, per joint, the shortest jerk-limited motion to the target state and one
tick of it is taken. The state it leaves behind is therefore always the start of a motion inside
velocity, acceleration and jerk limits. Position limits are not Ruckig's: before a step is taken,
the place where an immediate stop from the *new* state would end is worked out, and a joint whose
stop would leave its range brakes now instead. So at every tick a stop inside all limits exists.
"""

from __future__ import annotations

import numpy as np
from ruckig import (
    ControlInterface,
    InputParameter,
    OutputParameter,
    Result,
    Ruckig,
    Synchronization,
)

from wam_ros.contract.data import FloatArray
from wam_ros.contract.model import Limits

_EDGE = 1e-6  # rad or m


def stop_distance(v: FloatArray, a: FloatArray, a_max: FloatArray, j_max: FloatArray) -> FloatArray:
    """Signed displacement of a stop from velocity ``v`` and acceleration ``a``.

    An upper bound in the direction of motion: acceleration is first brought to zero at the jerk
    limit, then the speed reached is removed with a trapezoidal (or triangular) deceleration.
    """
    t0 = np.abs(a) / j_max
    v1 = v + 0.5 * a * t0
    d0 = v * t0 + a * t0**2 / 3.0
    speed = np.abs(v1)
    full = speed >= a_max**2 / j_max
    t = np.where(full, speed / a_max + a_max / j_max, 2.0 * np.sqrt(speed / j_max))
    return np.asarray(d0 + 0.5 * v1 * t)


class Limiter:
    """Follow a target within ``limits``; one instance owns the reference state.

    Attributes
    ----------
    position, velocity, acceleration
        Current reference, each ``(D,)``.
    """

    def __init__(self, limits: list[Limits], period: float) -> None:
        self._n = len(limits)
        # A hair inside the range, so that rounding in a stop along the edge stays inside it.
        self._lower = np.array([x.lower for x in limits]) + _EDGE
        self._upper = np.array([x.upper for x in limits]) - _EDGE
        self._v = np.array([x.velocity for x in limits])
        self._a = np.array([x.acceleration for x in limits])
        self._j = np.array([x.jerk for x in limits])
        self._dt = period
        self._follow, self._follow_in, self._follow_out = self._make(ControlInterface.Position)
        self._brake, self._brake_in, self._brake_out = self._make(ControlInterface.Velocity)
        self.reset(np.zeros(self._n))

    def _make(self, interface: ControlInterface) -> tuple[Ruckig, InputParameter, OutputParameter]:
        request = InputParameter(self._n)
        request.control_interface = interface
        request.synchronization = Synchronization.No
        request.max_velocity = self._v.tolist()
        request.max_acceleration = self._a.tolist()
        request.max_jerk = self._j.tolist()
        request.target_velocity = [0.0] * self._n
        request.target_acceleration = [0.0] * self._n
        return Ruckig(self._n, self._dt), request, OutputParameter(self._n)

    def reset(self, position: FloatArray) -> None:
        """Take ``position`` ``(D,)`` as the reference, at rest."""
        self.position = np.array(position, dtype=np.float64)
        self.velocity = np.zeros(self._n)
        self.acceleration = np.zeros(self._n)

    @property
    def at_rest(self) -> bool:
        """Whether the reference has stopped."""
        return bool(
            np.all(np.abs(self.velocity) < 1e-6) and np.all(np.abs(self.acceleration) < 1e-5)
        )

    def stop_time(self) -> float:
        """Longest time any joint needs to stop from here, in seconds."""
        t0 = np.abs(self.acceleration) / self._j
        speed = np.abs(self.velocity + 0.5 * self.acceleration * t0)
        return float(np.max(t0 + speed / self._a + self._a / self._j, initial=0.0))

    def step(
        self, target: FloatArray, velocity: FloatArray | None = None
    ) -> tuple[FloatArray, bool]:
        """Advance one period towards ``target`` ``(D,)`` moving at ``velocity`` ``(D,)``.

        Returns the new reference and whether it had to differ from the target.
        """
        wanted = np.zeros(self._n) if velocity is None else np.clip(velocity, -self._v, self._v)
        # A target on the edge may not ask for more than can be stopped there.
        goal = np.clip(target, self._lower, self._upper)
        room = np.where(wanted > 0, self._upper - goal, goal - self._lower)
        wanted = np.sign(wanted) * np.minimum(
            np.abs(wanted), np.sqrt(self._a * np.maximum(room, 0))
        )
        self._load(self._follow_in)
        self._follow_in.target_position = goal.tolist()
        self._follow_in.target_velocity = wanted.tolist()
        result = self._follow.update(self._follow_in, self._follow_out)
        if result not in (Result.Working, Result.Finished):
            return self.brake(), True
        p = np.array(self._follow_out.new_position)
        v = np.array(self._follow_out.new_velocity)
        a = np.array(self._follow_out.new_acceleration)
        end = p + stop_distance(v, a, self._a, self._j)
        unsafe = ((end > self._upper) & (v > 0)) | ((end < self._lower) & (v < 0))
        if unsafe.any():
            bp, bv, ba = self._brake_state()
            p, v, a = (np.where(unsafe, x, y) for x, y in ((bp, p), (bv, v), (ba, a)))
        self.position, self.velocity, self.acceleration = p, v, a
        return p, bool(np.any(np.abs(p - target) > 1e-4))

    def brake(self) -> FloatArray:
        """Advance one period along the fastest stop within the limits; returns the reference."""
        self.position, self.velocity, self.acceleration = self._brake_state()
        return self.position

    def _brake_state(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        self._load(self._brake_in)
        self._brake.update(self._brake_in, self._brake_out)
        out = self._brake_out
        return (
            np.array(out.new_position),
            np.array(out.new_velocity),
            np.array(out.new_acceleration),
        )

    def _load(self, request: InputParameter) -> None:
        request.current_position = self.position.tolist()
        request.current_velocity = self.velocity.tolist()
        request.current_acceleration = self.acceleration.tolist()
