"""One mapping from the loop's monotonic clock to ROS time."""

from __future__ import annotations


class ClockMap:
    """ROS time = monotonic time + offset; the offset moves smoothly, a jump is reported.

    Small differences (clock discipline, scheduling noise) are followed at no more than
    ``rate`` seconds per second, so that row times never step under the motion.
    """

    def __init__(
        self, ros: float, monotonic: float, jump: float = 0.1, rate: float = 0.002
    ) -> None:
        self._offset = ros - monotonic
        self._last = monotonic
        self._jump = jump
        self._rate = rate

    def update(self, ros: float, monotonic: float) -> bool:
        """Take a fresh pair of readings; returns True when ROS time jumped."""
        error = ros - monotonic - self._offset
        if abs(error) > self._jump:
            self._offset += error
            self._last = monotonic
            return True
        reach = self._rate * max(0.0, monotonic - self._last)
        self._offset += max(-reach, min(reach, error))
        self._last = monotonic
        return False

    def ros(self, monotonic: float) -> float:
        """ROS time at ``monotonic``."""
        return monotonic + self._offset
