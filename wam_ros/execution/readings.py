"""What the joints say: newest positions, how old they are, and whether they can be believed."""

from __future__ import annotations

import math
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
    commanded
        When the last command was sent; what was read before says nothing of rest.
    restless
        Indices of joints that need not rest for arming: nothing here drives them.
    """

    def __init__(self, names: Sequence[str], gate: Gate, stale_after: float) -> None:
        self.names = tuple(names)
        self.values = np.full(len(self.names), np.nan)
        self.commanded = -np.inf
        self.restless: set[int] = set()
        self._index = {n: i for i, n in enumerate(self.names)}
        self._at = np.full(len(self.names), -np.inf)
        self._oldest = -np.inf
        self._new_clock = False
        self._gate = gate
        self._stale_after = stale_after
        self._leap, self._leap_at, self._told = "", -np.inf, True
        # Per joint: where it has been since when (NaN: not heard on this clock), and what ended
        # its last rest, 0 unless it was a motion.
        self._place = [math.nan] * len(self.names)
        self._since = [math.nan] * len(self.names)
        self._moved = [0.0] * len(self.names)

    def take(self, values: dict[str, float], now: float) -> None:
        """Take positions by name; unknown names are ignored, NaN counts as not seen."""
        for name, value in values.items():
            i = self._index.get(name)
            if i is not None and np.isfinite(value):
                age = float(now - self._at[i])
                leap = self._gate.leap(i, value - self.values[i], age)
                if leap:
                    self._leap, self._leap_at, self._told = leap, now, False
                self.values[i] = value
                self._at[i] = now
                since = self._since[i]
                seen = since > self.commanded and age <= self._stale_after
                change = value - self._place[i] if seen else 0.0
                if not seen or self._gate.moved(i, change):
                    self._place[i], self._since[i], self._moved[i] = value, now, change
        self._oldest = float(self._at.min(initial=np.inf))

    def resting(self, now: float) -> None:
        """Believe that the arm has been at rest for long where it was just read."""
        for i, value in enumerate(self.values):
            if np.isfinite(value):
                self._place[i], self._since[i] = float(value), now - _REST

    def stale(self, now: float) -> bool:
        """Whether any joint has not been heard of for too long."""
        if self._new_clock:  # how old they are is not known any more: count from now
            self._new_clock = False
            self._at[np.isfinite(self._at) & np.isnan(self._since)] = now
            self._oldest = float(self._at.min(initial=np.inf))
        return now - self._oldest > self._stale_after

    def leapt(self) -> str:
        """A jump since the last call that no motion explains, or an empty string."""
        if self._told:
            return ""
        self._told = True
        return self._leap

    def unfit(self, now: float) -> str:
        """Why nobody may arm on these readings, or an empty string.

        An arm that heard a command a moment ago may be behind it: it is believed to rest where
        readings from after the last command have shown it at rest.
        """
        missing = [n for n, v in zip(self.names, self.values, strict=True) if not np.isfinite(v)]
        if missing:
            return f"no joint state yet for {', '.join(missing)}"
        if self.stale(now):
            return "joint states are stale; is the driver running?"
        unheard = [n for n, t in zip(self.names, self._since, strict=True) if math.isnan(t)]
        if unheard:
            return f"no joint state since the clock jumped for {', '.join(unheard)}"
        if now - self._leap_at < _STEADY:
            return f"{self._leap}; readings must be steady for {_STEADY} s"
        for i, since in enumerate(self._since):
            if i in self.restless:
                continue
            if since > self.commanded and self._at[i] - since >= _REST - 1e-6:
                continue
            if self._moved[i]:
                return (
                    f"{self.names[i]} is still moving ({abs(self._moved[i]):.3f} in a moment): "
                    "wait for it"
                )
            return f"joint states have not shown the arm at rest for {_REST} s yet: wait a moment"
        return self._gate.far_outside(self.values)

    def clock_jumped(self) -> None:
        """Times of before say nothing about now."""
        self.commanded = self._leap_at = -np.inf
        self._new_clock = True
        self._since = [math.nan] * len(self.names)

    def copy(self) -> FloatArray:
        """The values ``(D,)`` as they are now."""
        return self.values.copy()
