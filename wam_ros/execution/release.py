"""Giving way: after a following error the reference goes back to where the arm is."""

from __future__ import annotations

import numpy as np

from wam_ros.contract.data import FloatArray
from wam_ros.execution.limiter import Limiter, State


class Release:
    """The way back to ``position`` ``(D,)``, at the limits, and how long it may take.

    An arm pressed against something must not spring when it is freed, so the reference is brought
    to it before anything falls silent.

    Attributes
    ----------
    goal
        At rest at ``position``, ``(3, D)``.
    """

    def __init__(self, limiter: Limiter, position: FloatArray, period: float) -> None:
        self.goal: State = np.zeros((3, len(position)))
        self.goal[0] = position
        self._all = np.ones(len(position), dtype=bool)
        v_max, a_max, j_max = limiter.limits
        away = np.abs(position - limiter.position)
        seconds = away / v_max + 2.0 * v_max / a_max + 4.0 * a_max / j_max
        self._left = int((2.0 * float(seconds.max()) + 0.2) / period)

    def step(self, limiter: Limiter) -> FloatArray:
        """Move ``limiter`` on by one period; returns its position."""
        self._left -= 1
        return limiter.follow(self.goal, self.goal, self._all)

    @property
    def overdue(self) -> bool:
        """Whether it should have arrived long ago."""
        return self._left <= 0
