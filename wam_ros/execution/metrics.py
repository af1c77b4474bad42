"""Percentiles over the recent past, cheap enough for a 500 Hz loop."""

from __future__ import annotations

import numpy as np

from wam_ros.contract.data import FloatArray


class Window:
    """The last ``size`` values; the loop only writes, readers sort a copy."""

    def __init__(self, size: int) -> None:
        self._values = np.zeros(size)
        self._count = 0

    def add(self, value: float) -> None:
        """Remember one value, forgetting the oldest when full."""
        self._values[self._count % len(self._values)] = value
        self._count += 1

    def values(self) -> FloatArray:
        """What is remembered, a copy, in no particular order once it is full."""
        return self._values[: min(self._count, len(self._values))].copy()

    def percentiles(self, *q: float) -> tuple[float, ...]:
        """Percentiles of what is remembered; zeros when nothing is."""
        have = self._values[: min(self._count, len(self._values))]
        return tuple(map(float, np.percentile(have, q))) if len(have) else (0.0,) * len(q)
