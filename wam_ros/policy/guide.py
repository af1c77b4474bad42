"""Where the teacher moves next: a velocity for every pose, without memory.

What a learned policy sees is where the arms, the blocks and the bowl are, and the sentence. So that
is all the teacher's motion may depend on: a field of joint velocities, continuous in poses and
places, instead of a plan that is made once and followed. A pushed arm or a moved block needs no
special case; the field leads on from wherever things are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wam_ros.contract.data import FloatArray
from wam_ros.policy.reach import Reach

HOVER = 0.10
"""Height above the block (m) from which it is approached."""
TOUCH = 0.012
"""Height of the tool centre above the block's centre (m) at the end: inside its upper half."""
FUNNEL = (0.010, 0.045)
"""Horizontal distances (m) from the block between which the hand goes down."""
ROOM = 0.34
"""Horizontal distance (m) across the robot that the other hand keeps from the block."""
GAIN = 3.0
"""Approach to a goal: share of the speed limit per second of remaining travel at full speed."""
SPEED_SHARE = 0.35
"""Share of each joint's speed limit that the teacher uses."""
_WAIT = 0.03  # s of travel by which the other hand's way out does not hold up the acting hand
_LEVELS = 4


def smooth(s: float) -> float:
    """0 below 0, 1 above 1, cubic in between."""
    s = min(1.0, max(0.0, s))
    return s * s * (3.0 - 2.0 * s)


@dataclass(frozen=True)
class Push:
    """Wanted motion of one arm: joint speeds ``(D,)`` as shares of their limits, the largest is 1,
    and by how much of the limit to go."""

    direction: FloatArray
    share: float


class ArmGuide:
    """Fields of one arm; ``speed`` ``(D,)`` are its joints' speed limits, rad/s."""

    def __init__(self, reach: Reach) -> None:
        self.reach = reach
        self.speed = np.array([j.limits.velocity for j in reach.group.joints])

    def left(self, q: FloatArray, goal: FloatArray) -> float:
        """Seconds from ``q`` to ``goal`` at full speed."""
        return float(np.max(np.abs(goal - q) / self.speed))

    def towards(self, q: FloatArray, goal: FloatArray, remaining: float | None = None) -> Push:
        """Straight to ``goal``; ``remaining`` seconds of travel set the speed (default: to it)."""
        way = (goal - q) / self.speed
        size = float(np.max(np.abs(way)))
        left = size if remaining is None else remaining
        direction = way / size if size > 1e-9 else np.zeros_like(way)
        # Where the way is short the direction is noise; fade it out.
        return Push(direction * min(1.0, size / 2e-3), min(SPEED_SHARE, GAIN * left))

    def down_to(
        self, q: FloatArray, point: FloatArray, hover: float, foot: float
    ) -> tuple[Push, float]:
        """Over ``point`` at height ``hover`` (m above it), then straight down to ``foot`` above it.

        A hand that is low and far off rises first. Also returns the seconds of travel left.
        """
        tip = self.reach.pose(q)[:3, 3]
        away = float(np.hypot(*(tip - point)[:2]))
        inside = 1.0 - smooth((away - FUNNEL[0]) / (FUNNEL[1] - FUNNEL[0]))
        level = (1.0 - inside) * (hover - foot)
        goal = self._column(point + np.array([0.0, 0.0, foot]), level, hover - foot)
        left = self.left(q, self.reach.goal(point + np.array([0.0, 0.0, foot])).q)
        push = self.towards(q, goal, max(left, self.left(q, goal)))
        high = (tip[2] - point[2] - foot) / (hover - foot)
        return self.rise(q, push, high, (0.3, 0.8), 1.0 - inside), left

    def rise(
        self,
        q: FloatArray,
        push: Push,
        height: float,
        between: tuple[float, float],
        most: float = 1.0,
    ) -> Push:
        """Blend ``push`` with a way straight up, which alone counts below ``between``."""
        low, high = between
        share = most * (1.0 - smooth((height - low) / (high - low)))
        return self._mix(push, self.up(q), share) if share > 0.0 else push

    def up(self, q: FloatArray) -> FloatArray:
        """Direction ``(D,)`` that lifts the tool centre straight up and hardly turns the hand."""
        _, jac = self.reach.jacobian(q)
        jac[3:] *= 0.1
        rows = jac * self.speed
        lift = rows.T @ np.linalg.solve(
            rows @ rows.T + 1e-4 * np.eye(6), np.array([0.0, 0.0, 1.0, 0.0, 0.0, 0.0])
        )
        return np.asarray(lift / np.max(np.abs(lift)))

    @staticmethod
    def _mix(push: Push, direction: FloatArray, share: float) -> Push:
        mixed = (1.0 - share) * push.direction + share * direction
        return Push(mixed, (1.0 - share) * push.share + share * SPEED_SHARE)

    def _column(self, foot: FloatArray, level: float, height: float) -> FloatArray:
        """Goal ``level`` metres above ``foot``, between goals at fixed heights of the column."""
        place = min(level / height, 1.0) * (_LEVELS - 1)
        i = min(int(place), _LEVELS - 2)
        step = np.array([0.0, 0.0, height / (_LEVELS - 1)])
        a, b = (self.reach.goal(foot + k * step).q for k in (i, i + 1))
        return np.asarray(a + (place - i) * (b - a))


def aside(reach: Reach, acting: Reach, point: FloatArray) -> FloatArray:
    """Where the other hand waits, ``(D,)``: at home, or out of the way of ``point``.

    It goes out to its own side and up, by as much as the acting hand comes over to it.
    """
    side = np.sign(reach.home_tip[1] - acting.home_tip[1])
    missing = max(0.0, ROOM - float(side * (reach.home_tip[1] - point[1])))
    if missing == 0.0:
        return reach.home
    out = np.array([-0.3, side, 0.25]) * missing
    return reach.goal(reach.home_tip + out).q


def hold_up(own: float, other: float) -> float:
    """Factor on the acting hand's speed while the other one is farther from its place (s each)."""
    return (own + _WAIT) / (max(own, other) + _WAIT)
