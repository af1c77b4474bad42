"""The motion under way: rows of the last chunk on the time line, and the path through them."""

from __future__ import annotations

import numpy as np

from wam_ros.contract.data import ActionChunk, FloatArray
from wam_ros.execution.limiter import Flags, Limiter, State
from wam_ros.execution.pace import Pace
from wam_ros.execution.place import CLOSE, Targets
from wam_ros.execution.plan import Path, fit_within
from wam_ros.execution.settings import Settings

_DENSEST = 1.0 / 6.0  # of the smoothing: rows closer than that are thinned out
_REST = 1.95  # s after the last row within which the reference comes to rest


class Motion:
    """Plans from the limiter's state through the rows, and walks the path.

    Attributes
    ----------
    pace
        The time line.
    targets, chunk
        Rows under way and where they come from; None without.
    """

    def __init__(self, limiter: Limiter, settings: Settings, gripper: Flags, period: float) -> None:
        self._limiter = limiter
        self._settings = settings
        self._gripper = np.flatnonzero(gripper)
        self._period = period
        self.pace = Pace(period)
        self.targets: Targets | None = None
        self.chunk: ActionChunk | None = None
        self._path: Path | None = None
        self._resting = False
        self._here: State | None = None

    def forget(self) -> None:
        """Nothing is under way."""
        self._path = self.targets = self.chunk = self._here = None

    @property
    def under_way(self) -> bool:
        """Whether there is a path to follow."""
        return self._path is not None

    def plan(self, targets: Targets, rest: float | None = None) -> None:
        """Fit the path from the present reference through what lies ahead of ``targets``.

        With ``rest`` it comes to rest on the last row, that many seconds after the row is due:
        whoever brakes evenly over a stretch takes twice as long for it.
        """
        lim, pace = self._limiter, self.pace
        # In path time: undo the pace, which is 1 unless motion is being slowed.
        rate = max(pace.rate, 0.2)
        velocity = lim.velocity / rate
        acceleration = (lim.acceleration - pace.slope * velocity) / rate**2
        state = np.array([lim.position, velocity, acceleration])
        if rest is not None:
            targets = targets.held(rest)
        ahead = targets.after(pace.time + CLOSE * targets.step)
        ahead = ahead.thinned(self._settings.smoothing * _DENSEST)
        self._path = fit_within(
            pace.time,
            state,
            (ahead.times, ahead.rows),
            self._settings.smoothing,
            lim.limits,
            rest=rest is not None,
        )
        self._resting = rest is not None
        self._here = None

    def step(self, now: float) -> tuple[State, State]:
        """Walk one period; the path's states before and after it."""
        self._mind_the_end()
        here = self._sample() if self._here is None else self._here
        self.pace.advance(now, self._wanted_pace())
        self._here = self._sample()
        return here, self._here

    @property
    def over(self) -> bool:
        """Whether the path has ended and the reference rests, or must be stopped to."""
        assert self._path is not None and self.targets is not None
        if self.pace.time < self._path.end:
            return False
        left = self.targets.end + _REST - self.pace.time
        # A joint that trails its path, or leans on the edge of its range, has just the time left
        # that a stop takes.
        limiter = self._limiter
        return limiter.at_rest or limiter.stop_time(self._settings.gentle) >= left

    def _sample(self) -> State:
        """The path's state now, per second of the clock; grippers have their own way."""
        assert self._path is not None and self.targets is not None
        pace = self.pace
        state = self._path.sample(pace.time)
        if pace.rate != 1.0 or pace.slope != 0.0:
            state[2] = state[2] * pace.rate**2 + state[1] * pace.slope
            state[1] *= pace.rate
        if len(self._gripper):
            wanted = self.targets.at(pace.time)
            now = self._limiter.position
            for i in self._gripper:
                close = abs(wanted[i] - now[i]) < self._settings.gripper_step
                state[0, i] = now[i] if close else wanted[i]
        return state

    def _mind_the_end(self) -> None:
        """When rows are about to run out, replan what is left of them so that it ends at rest."""
        assert self._path is not None and self.targets is not None
        left = self.targets.end - self.pace.time
        if self._resting or left > 1.0:
            return
        half = 0.5 * self._limiter.stop_time(self._settings.gentle) + self._period
        if left <= half:
            self.plan(self.targets, rest=half)

    def _wanted_pace(self) -> float:
        """Below 1 while less than a third of the rows is left and no chunk has come."""
        if self._settings.slowest >= 1.0 or self.chunk is None or self.targets is None:
            return 1.0
        third = self.chunk.horizon * self.chunk.step_period / 3.0
        share = (self.targets.end - self.pace.time) / third
        return float(np.clip(share, self._settings.slowest, 1.0))

    def runs_out(self, seconds: float) -> bool:
        """Whether the path ends within ``seconds`` without coming to rest: it will be replanned."""
        assert self._path is not None
        return not self._resting and self._path.end < self.pace.time + self.pace.rate * seconds

    def ahead(self, times: FloatArray) -> list[State]:
        """States of the path ``times`` seconds from now, per second of the clock."""
        assert self._path is not None
        pace = self.pace.rate
        scale = np.array([[1.0], [pace], [pace**2]])
        return [scale * self._path.sample(self.pace.time + pace * float(t)) for t in times]

    def progress(self) -> tuple[int, float, float]:
        """Sequence of the chunk under way, rows of it consumed, seconds of rows left."""
        chunk, targets = self.chunk, self.targets  # another thread may ask while the loop forgets
        if chunk is None or targets is None:
            return 0, 0.0, 0.0
        time = self.pace.time
        row = float(np.clip((time - targets.times[0]) / chunk.step_period, 0.0, chunk.horizon))
        return chunk.sequence, row, max(0.0, targets.end - time)
