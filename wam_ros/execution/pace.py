"""The time line that paths live on, and how fast it is walked."""

from __future__ import annotations

from collections import deque

_RATE = 8.0  # 1/s, double pole of changes of pace
_HISTORY = 1024
_CALM = 0.05
"""Share of the pace by which a little is caught up."""
_SOME, _URGENT, _FAST = 0.04, 6.0, 0.6
"""Beyond this many seconds: change of pace per second missing, and the most it may be."""


class Pace:
    """Path time: equal to the clock unless the motion was slowed down.

    A tick advances path time by one period, whatever the wake-up's lateness, so the motion is not
    shaken by the scheduler. What is missing after skipped ticks is caught up: a few at no more
    than 5 %, and faster only where a busy machine loses so many that 5 % would never do.
    Slowing down is smooth: ``rate`` has a continuous slope, since velocity scales with it.

    Attributes
    ----------
    time
        Path time, s.
    rate, slope
        Path seconds per second, and its derivative.
    headroom
        Share 0..1 of the haste above 5 % that is allowed: an arm that does not follow must not be
        hurried on.
    """

    def __init__(self, period: float) -> None:
        self._dt, self.headroom = period, 1.0
        self.restart(0.0)

    def restart(self, now: float) -> None:
        """Begin anew at clock time ``now``, at full pace."""
        self.time = now
        self.rate, self.slope = 1.0, 0.0
        self._slow, self._lag = 1.0, 0.0
        self._past: deque[tuple[float, float]] = deque(maxlen=_HISTORY)

    def late(self, now: float) -> float:
        """Seconds by which path time is behind where it should be at clock time ``now``."""
        return now - self._lag - self.time

    def skip(self, now: float) -> None:
        """Drop what is missing, after the loop stood still for long."""
        self._lag = now - self.time

    def advance(self, now: float, wanted: float = 1.0) -> None:
        """Walk one period, approaching pace ``wanted`` (0..1)."""
        dt = self._dt
        late = self.late(now) - dt
        catch_up = min(max(2.0 * late, -_CALM), _CALM)
        catch_up = max(catch_up, min(_URGENT * (late - _SOME), self.headroom * _FAST))
        pull = _RATE * (_RATE * (wanted + catch_up - self.rate) - 2.0 * self.slope)
        self.slope += dt * pull
        self.rate = min(max(self.rate + dt * self.slope, 0.0), 1.0 + _FAST)
        self._slow += dt * _RATE * (wanted - self._slow)
        self.time += dt * self.rate
        self._lag += dt * (1.0 - self._slow)
        if not self._past or now - self._past[-1][0] >= 0.01:
            self._past.append((now, self._lag))

    def at(self, t: float) -> float:
        """Path time that belonged to clock time ``t``, from the past ten seconds."""
        lag = self._past[0][1] if self._past else self._lag
        for stamp, past in reversed(self._past):
            if stamp <= t:
                lag = past
                break
        return t - lag
