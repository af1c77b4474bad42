"""How far the executor had come with a chunk, at the time of any frame.

A call is made some time after its newest frame was taken, the executor tells how far it is ten
times a second, and an arm that rests between two chunks consumes no rows. Counting rows back from
what was heard last would therefore be off by several.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import dropwhile

import numpy as np

_SPAN = 4.0  # s of memory, as frames have


@dataclass(frozen=True)
class _Told:
    stamp: float
    sequence: int
    rows: float
    pace: float


@dataclass
class Progress:
    """What the executor said, in its order.

    Parameters
    ----------
    period
        Seconds per row.
    """

    period: float
    _told: deque[_Told] = field(init=False, default_factory=deque)

    def tell(self, stamp: float, sequence: int, rows: float, pace: float) -> None:
        """Note that ``rows`` of chunk ``sequence`` were consumed at ``stamp`` (s).

        ``pace`` is the share of the rows' speed at which it goes on, 0 at rest. A stamp of a
        second or more ago means a new clock; another that is not newer is ignored.
        """
        if self._told and stamp < self._told[-1].stamp - 1.0:
            self._told.clear()
        if not self._told or stamp > self._told[-1].stamp:
            self._told.append(_Told(stamp, sequence, rows, pace))
        while stamp - self._told[0].stamp > _SPAN:
            self._told.popleft()

    def at(self, sequence: int, times: Sequence[float]) -> tuple[float, ...]:
        """Rows of chunk ``sequence`` that were consumed at ``times`` (s), below 0 before its start.

        Nothing when the executor has said nothing about that chunk.
        """
        told = [x for x in self._told if x.sequence == sequence]
        if not told:
            return ()
        first, last = told[0], told[-1]
        later = dropwhile(lambda x: x.stamp <= last.stamp, self._told)
        until = next((x.stamp for x in later), float("inf"))
        stamps, rows = [x.stamp for x in told], [x.rows for x in told]
        found = []
        for t in times:
            if t < first.stamp:
                found.append(first.rows - (first.stamp - t) / self.period)
            elif t > last.stamp:
                found.append(last.rows + (min(t, until) - last.stamp) * last.pace / self.period)
            else:
                found.append(float(np.interp(t, stamps, rows)))
        return tuple(found)
