"""What the joints say: newest positions, how old they are, and whether they can be believed."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

from wam_ros.contract.data import FloatArray
from wam_ros.execution.gate import Gate

_STEADY = 0.5  # s without a jump in the readings before arming
_REST = 0.2
"""Seconds over which the readings must show the arm at rest before it is armed."""


class Readings:
    """Newest position of every joint in ``names``.

    Attributes
    ----------
    values
        Positions ``(D,)``, NaN before a joint was first seen.
    """

    def __init__(self, names: Sequence[str], gate: Gate, stale_after: float) -> None:
        self.names = tuple(names)
        self.values = np.full(len(self.names), np.nan)
        self._index = {n: i for i, n in enumerate(self.names)}
        self._at = np.full(len(self.names), -np.inf)
        self._oldest = -np.inf
        self._new_clock = False
        self._gate = gate
        self._stale_after = stale_after
        self._leap, self._leap_at, self._told = "", -np.inf, True
        # What was known of all joints when the one read longest ago was read.
        self._past: deque[tuple[float, FloatArray]] = deque()

    def take(self, values: dict[str, float], now: float) -> None:
        """Take positions by name; unknown names are ignored, NaN counts as not seen."""
        for name, value in values.items():
            i = self._index.get(name)
            if i is not None and np.isfinite(value):
                leap = self._gate.leap(i, value - self.values[i], now - self._at[i])
                if leap:
                    self._leap, self._leap_at, self._told = leap, now, False
                self.values[i] = value
                self._at[i] = now
        before, self._oldest = self._oldest, float(self._at.min(initial=np.inf))
        if self._oldest - before > self._stale_after:  # what happened in between, nobody saw
            self._past.clear()
        past = self._past
        if np.isfinite(self._oldest) and (not past or self._oldest - past[-1][0] >= 0.1 * _REST):
            past.append((self._oldest, self.values.copy()))
            while len(past) > 1 and self._oldest - past[1][0] >= _REST:
                past.popleft()

    def resting(self, now: float) -> None:
        """Believe that the arm has been at rest for long where it was just read."""
        self._past.appendleft((now - _REST, self.values.copy()))

    def stale(self, now: float) -> bool:
        """Whether any joint has not been heard of for too long."""
        if self._new_clock:  # how old they are is not known any more: count from now
            self._new_clock = False
            self._at[np.isfinite(self._at)] = now
            self._oldest = float(self._at.min(initial=np.inf))
        return now - self._oldest > self._stale_after

    def leapt(self) -> str:
        """A jump since the last call that no motion explains, or an empty string."""
        if self._told:
            return ""
        self._told = True
        return self._leap

    def unfit(self, now: float, since: float = -np.inf) -> str:
        """Why nobody may arm on these readings, or an empty string.

        An arm that heard its last command at ``since`` may be behind it: it is believed to rest
        where readings from then on have shown it at rest.
        """
        missing = [n for n, v in zip(self.names, self.values, strict=True) if not np.isfinite(v)]
        if missing:
            return f"no joint state yet for {', '.join(missing)}"
        if self.stale(now):
            return "joint states are stale; is the driver running?"
        if now - self._leap_at < _STEADY:
            return f"{self._leap}; readings must be steady for {_STEADY} s"
        seen = [(then, values) for then, values in self._past if then >= since]
        for _, values in seen:
            moving = self._gate.moved(self.values - values)
            if moving:
                return moving
        if not seen or self._oldest - seen[0][0] < _REST - 1e-6:
            return f"joint states have not shown the arm at rest for {_REST} s yet: wait a moment"
        return self._gate.far_outside(self.values)

    def clock_jumped(self) -> None:
        """Times of before say nothing about now."""
        self._leap_at = -np.inf
        self._new_clock = True
        self._past.clear()

    def copy(self) -> FloatArray:
        """The values ``(D,)`` as they are now."""
        return self.values.copy()
