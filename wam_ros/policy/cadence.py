"""When to ask the policy for the next chunk.

* ``sync``: when the rows of the last chunk have been executed and the arm holds.
* ``async``: one p95 latency and ``margin`` before the rows run out; falls back to ``sync`` while
  that latency exceeds half a chunk.
* ``sliding``: every ``period``; allowed while p95 latency + period fits in the horizon, else it
  falls back to ``async`` (or ``sync``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wam_ros.contract.data import CADENCES


class Latency:
    """Recent inference times; a warm-up (the first call of an instruction) does not count.

    It may take seconds where later calls take a tenth: text is encoded, a path planned.
    """

    def __init__(self, size: int = 50) -> None:
        self._values: list[float] = []
        self._size = size
        self._warm_up = 0.0

    def add(self, seconds: float, warm_up: bool = False) -> None:
        """Remember one inference."""
        if warm_up:
            self._warm_up = seconds
        else:
            self._values = [*self._values[-self._size + 1 :], seconds]

    def expected(self, most: float) -> float:
        """Time (s) to plan the next call with: p95, or the warm-up's up to ``most`` before that."""
        return self.percentile(95) if self._values else min(self._warm_up, most)

    def shown(self, q: float) -> float:
        """Percentile ``q`` for people to read; the warm-up's time while nothing else is known."""
        return self.percentile(q) if self._values else self._warm_up

    def percentile(self, q: float) -> float:
        """Percentile ``q`` 0..100 in seconds; 0 when nothing is known yet."""
        return float(np.percentile(self._values, q)) if self._values else 0.0


@dataclass(frozen=True)
class Decision:
    """Whether to call now, the cadence in force, and why it is not the one asked for."""

    call: bool
    cadence: str
    reason: str = ""


@dataclass
class Scheduler:
    """Decides call by call; times in seconds.

    Parameters
    ----------
    requested
        One of sync, async, sliding.
    horizon
        Duration of a chunk.
    period
        Call period of ``sliding``.
    margin
        Seconds that ``async`` calls before one p95 latency is left: the call waits for the next
        observation, one in twenty answers is later than p95, and the executor begins to brake a
        little before the last row.
    """

    requested: str
    horizon: float
    period: float = 1.0 / 7.0
    margin: float = 0.1

    def __post_init__(self) -> None:
        if self.requested not in CADENCES:
            raise ValueError(f"cadence '{self.requested}' is not one of {', '.join(CADENCES)}")
        self._last_call = float("-inf")
        self._rows_end: float | None = None

    def reset(self) -> None:
        """Forget the last chunk, at a new instruction."""
        self._last_call = float("-inf")
        self._rows_end = None

    def called(self, now: float) -> None:
        """Note that a call starts now."""
        self._last_call = now

    def delivered(self, t_end: float) -> None:
        """Note that a chunk went out whose last row is due at ``t_end``."""
        self._rows_end = t_end

    def in_force(self, p95: float) -> tuple[str, str]:
        """Cadence that the measured latency allows, and why it differs from the request."""
        cadence, reason = self.requested, ""
        if cadence == "sliding" and p95 + self.period > self.horizon:
            cadence = "async"
            reason = (
                f"sliding needs p95 latency + period below the {self.horizon:.2f} s horizon; "
                f"they are {p95:.2f} + {self.period:.2f} s"
            )
        if cadence == "async" and p95 > 0.5 * self.horizon:
            cadence = "sync"
            why = f"async needs p95 latency below half the horizon; it is {p95:.2f} s"
            reason = f"{reason}; {why}" if reason else why
        return cadence, reason

    def next_call(self, p95: float) -> float:
        """When the next call is due at the earliest, on the clock of ``now``; -inf for at once."""
        if self._rows_end is None:
            return float("-inf")
        cadence, _ = self.in_force(p95)
        if cadence == "sliding":
            return self._last_call + self.period
        return self._rows_end - (p95 + self.margin if cadence == "async" else 0.0)

    def decide(self, now: float, p95: float, resting: bool) -> Decision:
        """Whether to start a call at ``now``; ``resting`` says that the executor holds."""
        cadence, reason = self.in_force(p95)
        if self._rows_end is None:  # nothing under way: the first call of an instruction
            return Decision(True, cadence, reason)
        due = now >= self.next_call(p95) - (1e-3 if cadence == "sliding" else 0.0)
        return Decision(due and (resting or cadence != "sync"), cadence, reason)
