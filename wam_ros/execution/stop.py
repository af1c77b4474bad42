"""The fastest stop of a joint whose speed, acceleration and jerk are limited, in closed form.

Every function works on arrays of joints at once. A stop changes the acceleration at the jerk limit
until it opposes the motion, holds it at the acceleration limit where there is time to, and brings
it back to zero just as the speed reaches zero: the time-optimal profile, as Ruckig's velocity
interface plans it (the tests compare the two).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wam_ros.contract.data import FloatArray


@dataclass(frozen=True)
class Stop:
    """Profiles of the stops from one state, an element per joint.

    ``u`` and ``b`` are speed and acceleration seen in the direction ``side`` (+1 or -1) in which
    the joint would drift if its acceleration were taken away now; ``t1``, ``t2``, ``t3`` are the
    durations of the three phases (s).
    """

    side: FloatArray
    u: FloatArray
    b: FloatArray
    jerk: FloatArray
    t1: FloatArray
    t2: FloatArray
    t3: FloatArray

    @property
    def duration(self) -> FloatArray:
        """Seconds until each joint rests."""
        return np.asarray(self.t1 + self.t2 + self.t3)

    def at(self, t: float | FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Displacement, velocity and acceleration after ``t`` seconds of the stop."""
        j = self.jerk
        s1 = np.minimum(t, self.t1)
        s2 = np.clip(t - self.t1, 0.0, self.t2)
        s3 = np.clip(t - self.t1 - self.t2, 0.0, self.t3)
        b = self.b - j * s1
        x = s1 * (self.u + s1 * (0.5 * self.b - j * s1 / 6.0))
        u = self.u + s1 * (self.b - 0.5 * j * s1)
        x = x + s2 * (u + 0.5 * b * s2)
        u = u + b * s2
        x = x + s3 * (u + s3 * (0.5 * b + j * s3 / 6.0))
        u = u + s3 * (b + 0.5 * j * s3)
        b = b + j * s3
        done = t >= self.duration  # rounding must not leave a joint creeping
        u, b = np.where(done, 0.0, u), np.where(done, 0.0, b)
        return self.side * x, self.side * u, self.side * b

    def reach(self) -> tuple[FloatArray, FloatArray]:
        """Lowest and highest displacement met on the way to rest; both include 0."""
        end = self.side * self.at(np.inf)[0]
        # A joint that still moves against `side` turns round first, within the first phase.
        back = np.minimum(self.u, 0.0)
        turn = (self.b - np.sqrt(np.maximum(self.b**2 + 2.0 * self.jerk * back, 0.0))) / self.jerk
        turn = np.where(back < 0.0, turn, 0.0)
        low = turn * (self.u + turn * (0.5 * self.b - self.jerk * turn / 6.0))
        low, high = np.minimum(low, np.minimum(end, 0.0)), np.maximum(end, 0.0)
        forward = self.side > 0
        return np.where(forward, low, -high), np.where(forward, high, -low)

    def peak_speed(self) -> FloatArray:
        """Largest speed met on the way to rest."""
        rising = self.u + np.maximum(self.b, 0.0) ** 2 / (2.0 * self.jerk)
        return np.asarray(np.maximum(np.abs(self.u), rising))


def stop(v: FloatArray, a: FloatArray, a_max: FloatArray, jerk: FloatArray) -> Stop:
    """Plan the fastest stops from velocities ``v`` and accelerations ``a``, each ``(D,)``."""
    drift = v + 0.5 * a * np.abs(a) / jerk
    side = np.where(drift < 0.0, -1.0, 1.0)
    u, b = side * v, side * a
    full = np.sqrt(np.maximum(jerk * u + 0.5 * b * b, 0.0))
    opposed = np.maximum(np.minimum(full, a_max), -b)
    t1 = (b + opposed) / jerk
    left = u + 0.5 * b * b / jerk - opposed * opposed / jerk
    t2 = np.where(full > opposed, np.maximum(left, 0.0) / np.maximum(opposed, 1e-12), 0.0)
    return Stop(side, u, b, jerk, t1, t2, opposed / jerk)
