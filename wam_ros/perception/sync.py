"""Line up samples of many sources at one reference time.

The reference time of a tick is the newest time that every live source has reached: the minimum,
over sources that are not stale, of the newest stamp. Each source then gives the newest sample not
after it, so nothing from the future is ever used. What happens when that sample is old is the
source's own policy:

* ``hold``: use it however old it is, up to ``timeout``; older than ``tolerance`` counts as held;
* ``asof``: use it if it is no older than ``tolerance``;
* ``drop``: like ``asof``, and samples are used at most once.
"""

from __future__ import annotations

import bisect
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Literal

from wam_ros.contract.model import AlignPolicy


class SampleStatus(IntEnum):
    """Same numbers as Observation.source_status."""

    FRESH = 0
    HELD = 1
    MISSING = 2


@dataclass(frozen=True)
class SourceSpec:
    """How one source takes part: times in seconds."""

    name: str
    policy: AlignPolicy = "hold"
    tolerance: float = 0.1
    timeout: float = 0.5


@dataclass(frozen=True)
class Picked:
    """The sample chosen for one source."""

    stamp: float
    value: Any
    status: SampleStatus


@dataclass(frozen=True)
class Aligned:
    """One tick's outcome: ``reason`` is empty when ``picked`` holds every source."""

    t0: float
    picked: dict[str, Picked]
    skew: float
    reason: str


def succession(last: float | None, stamp: float) -> Literal["newer", "older", "restart"]:
    """How a stamp follows the last one of its source.

    An ``older`` sample came late and is of no use; ``restart`` is a clock that was set back by a
    second or more, which must not block the source for good.
    """
    if last is None or stamp > last:
        return "newer"
    return "older" if last - stamp < 1.0 else "restart"


def pick(
    spec: SourceSpec,
    stamps: Sequence[float],
    values: Sequence[Any],
    t0: float,
    now: float,
    last_used: float = float("-inf"),
) -> Picked:
    """The sample of one source for reference time ``t0``, by the source's policy.

    ``stamps`` rise and go with ``values``; ``now`` is the time the timeout counts from, and
    ``last_used`` the stamp a ``drop`` source gave last. Live and offline alignment both end here.
    """
    i = bisect.bisect_right(stamps, t0) - 1
    if i < 0:
        return Picked(float("nan"), None, SampleStatus.MISSING)
    stamp = stamps[i]
    fresh = t0 - stamp <= spec.tolerance
    used = spec.policy == "drop" and stamp <= last_used
    if now - stamp > spec.timeout or used or (not fresh and spec.policy != "hold"):
        return Picked(stamp, None, SampleStatus.MISSING)
    return Picked(stamp, values[i], SampleStatus.FRESH if fresh else SampleStatus.HELD)


def verdict(picked: Mapping[str, Picked], max_skew: float) -> tuple[float, str]:
    """Skew of a set of samples in seconds, and why it cannot be used (empty when it can)."""
    missing = [n for n, p in picked.items() if p.status is SampleStatus.MISSING]
    used = [p.stamp for p in picked.values() if p.status is not SampleStatus.MISSING]
    skew = max(used) - min(used) if used else 0.0
    if missing:
        return skew, f"no usable sample from {', '.join(missing)}"
    if skew > max_skew:
        return skew, f"samples are {skew * 1e3:.0f} ms apart, more than {max_skew * 1e3:.0f}"
    return skew, ""


@dataclass
class _Buffer:
    spec: SourceSpec
    stamps: deque[float] = field(default_factory=lambda: deque(maxlen=64))
    values: deque[Any] = field(default_factory=lambda: deque(maxlen=64))
    received: int = 0
    out_of_order: int = 0
    last_used: float = float("-inf")


class Aligner:
    """Buffers samples per source and picks a set at each tick."""

    def __init__(self, sources: Sequence[SourceSpec], max_skew: float) -> None:
        self._buffers = {s.name: _Buffer(s) for s in sources}
        self._max_skew = max_skew
        self._last_t0 = float("-inf")
        self.dropped = 0
        self.complete = 0

    def push(self, name: str, stamp: float, value: Any) -> bool:
        """Take a sample; one that is not newer than the last is counted and refused."""
        b = self._buffers[name]
        b.received += 1
        order = succession(b.stamps[-1] if b.stamps else None, stamp)
        if order == "older":
            b.out_of_order += 1
            return False
        if order == "restart":
            b.stamps.clear()
            b.values.clear()
            self._last_t0 = float("-inf")
        b.stamps.append(stamp)
        b.values.append(value)
        return True

    def received(self, name: str) -> int:
        """Samples seen from a source so far."""
        return self._buffers[name].received

    def stamps(self, name: str) -> tuple[float, ...]:
        """Stamps of the last samples of a source, oldest first."""
        return tuple(self._buffers[name].stamps)

    def newest(self, name: str) -> float | None:
        """Stamp of the newest sample of a source, or None."""
        stamps = self._buffers[name].stamps
        return stamps[-1] if stamps else None

    def align(self, now: float) -> Aligned | None:
        """Pick one sample per source at ``now``; None when nothing new has arrived."""
        live = [
            b.stamps[-1]
            for b in self._buffers.values()
            if b.stamps and now - b.stamps[-1] <= b.spec.timeout
        ]
        t0 = min(live, default=now)
        if live and t0 <= self._last_t0:
            return None
        picked = {
            n: pick(b.spec, list(b.stamps), b.values, t0, now, b.last_used)
            for n, b in self._buffers.items()
        }
        skew, reason = verdict(picked, self._max_skew)
        if reason:
            self.dropped += 1
        else:
            self.complete += 1
            self._last_t0 = t0
            for name, p in picked.items():
                self._buffers[name].last_used = p.stamp
        return Aligned(t0, picked, skew, reason)
