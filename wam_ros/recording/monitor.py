"""Watch what arrives while it is recorded: rates, gaps, lost messages, disk."""

from __future__ import annotations

import shutil
import struct
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from wam_ros.perception.loss import lost_share

LOSS = 0.05
"""Share of a camera's frames that may be missing before it is reported."""
SLOW = 0.8
"""Share of the nominal rate below which a topic counts as slow."""
_HEADER = struct.Struct("<iI")


def header_stamp(data: bytes) -> float | None:
    """Stamp in seconds of a serialized message that begins with std_msgs/Header.

    Reads the eight bytes after the CDR encapsulation; None for big-endian or too short data.
    """
    if len(data) < 12 or data[1] != 1:
        return None
    sec, nanosec = _HEADER.unpack_from(data, 4)
    return float(sec) + nanosec * 1e-9


@dataclass
class TopicMonitor:
    """One topic's arrivals. ``rate`` is the nominal rate in Hz, None where there is none."""

    topic: str
    rate: float | None = None
    stamped: bool = False
    counted: bool = True
    count: int = 0
    lost: int = 0
    longest_gap: float = 0.0
    _arrivals: deque[float] = field(default_factory=lambda: deque(maxlen=64))
    _stamps: deque[float] = field(default_factory=lambda: deque(maxlen=64))
    _sequence: int = -1

    def add(self, now: float, data: bytes, sequence: int | None) -> None:
        """Take a message that arrived at ``now`` (s); ``sequence`` counts its publisher's."""
        if self._arrivals:
            self.longest_gap = max(self.longest_gap, now - self._arrivals[-1])
        self.count += 1
        self._arrivals.append(now)
        if sequence is not None and self.counted:
            # A smaller number is another publisher, or one that was restarted.
            if self._sequence >= 0 and sequence > self._sequence + 1:
                self.lost += sequence - self._sequence - 1
            self._sequence = sequence
        if self.stamped:
            stamp = header_stamp(data)
            if stamp is not None and (not self._stamps or stamp > self._stamps[-1]):
                self._stamps.append(stamp)

    def measured(self) -> float:
        """Arrivals per second over the last 64; 0 with fewer than two."""
        if len(self._arrivals) < 2:
            return 0.0
        return (len(self._arrivals) - 1) / max(1e-9, self._arrivals[-1] - self._arrivals[0])

    def current(self, now: float) -> float:
        """Arrivals per second, 0 once the topic has fallen silent."""
        rate = self.measured()
        silent = now - self._arrivals[-1] if self._arrivals else 0.0
        return rate if rate and silent < max(1.0, 5.0 / rate) else 0.0

    def warning(self, now: float, since: float) -> str:
        """What is wrong, in one sentence; empty when nothing is.

        ``since`` is when recording began: a topic that never came is a fault after one second.
        """
        patience = max(1.0, 5.0 / self.rate) if self.rate else 1.0
        if not self._arrivals:
            if self.rate is None or now - since <= patience:
                return ""
            return f"nothing on {self.topic} yet: is its driver running?"
        silent = now - self._arrivals[-1]
        if self.rate is not None and silent > patience:
            return f"{self.topic} is silent for {silent:.1f} s"
        if len(self._stamps) >= 12:
            share = lost_share(self._stamps)
            if share > LOSS:
                return f"{share * 100:.0f} % of the frames on {self.topic} are lost on the way"
        if self.rate is not None and len(self._arrivals) > 20:
            rate = self.measured()
            if rate < SLOW * self.rate:
                return f"{self.topic} comes at {rate:.1f} Hz, the contract says {self.rate:.0f}"
        return ""


@dataclass(frozen=True)
class DiskGuard:
    """Refuses to begin, and ends an episode, when less than ``minimum`` bytes are free."""

    folder: Path
    minimum: int

    def problem(self) -> str:
        """Why recording must not go on; empty when there is room."""
        probe = self.folder
        while not probe.exists():
            probe = probe.parent
        free = shutil.disk_usage(probe).free
        if free >= self.minimum:
            return ""
        return (
            f"only {free / 1e9:.1f} GB free under {self.folder}, {self.minimum / 1e9:.1f} GB are "
            "kept: make room, or record elsewhere"
        )
