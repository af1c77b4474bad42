"""What the reference is expected to do next, for controllers that are sent a stretch of motion.

The limiter and the gate see one state a tick, so a stretch cut from the path would carry whatever
the path asks for. Where that is more than the limits allow, or where the reference is not on its
path, a second limiter walks the stretch ahead of the real one, in longer steps.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from wam_ros.contract.data import FloatArray
from wam_ros.contract.model import Limits
from wam_ros.execution.limiter import Flags, Limiter, State

_ON_PATH = 1e-6
"""Distance from the path's position, rad or m, up to which the reference counts as on it; velocity
and acceleration may be away by this per period and per period squared."""


class Outlook:
    """Look ahead along a path as far as the limits let the reference follow it."""

    def __init__(self, limits: list[Limits], period: float) -> None:
        self._limits = limits
        self._period = period
        self._scout: Limiter | None = None
        self._step = 0.0

    def along(
        self, limiter: Limiter, path: list[State], step: float, still: Flags, sure: bool = True
    ) -> list[State]:
        """States of the reference at ``step``, ``2 step``, … seconds from now.

        Parameters
        ----------
        limiter
            Where the reference is; not moved.
        path
            States the path has now and at those times, ``K + 1`` of them.
        step
            Seconds between them.
        still
            Joints ``(D,)`` that are shown at rest where they are: grippers, which go their own way.
        sure
            Whether the path is smooth all that time; it is not where rows run out.

        Returns
        -------
        list of State
            ``K`` states inside the limits. Between two of them a quintic is the motion itself as
            long as the jerk is constant there, as it is but where a joint chases its path.
        """
        now = limiter.state
        if sure and self._inside(limiter, now, path, step, still):
            states = path[1:]
        else:
            scout, nobody = self._ready(step), np.zeros(len(still), dtype=bool)
            scout.start_as(limiter, still)
            walk = [_shown(s, now[0], still) for s in path]
            states = []
            for here, there in pairwise(walk):
                scout.follow(here, there, nobody)
                states.append(scout.state)
        return [_shown(s, now[0], still) for s in states]

    def stop(self, limiter: Limiter, share: float, step: float, count: int) -> list[State]:
        """Likewise while the reference comes to rest with ``share`` of its limits."""
        if limiter.at_rest:
            return [limiter.state] * count
        return self._walk(limiter, step, count, lambda scout: scout.brake(share))

    def give_way(self, limiter: Limiter, goal: State, step: float, count: int) -> list[State]:
        """Likewise while the reference goes straight to ``goal``."""
        everybody = np.ones(goal.shape[1], dtype=bool)
        return self._walk(limiter, step, count, lambda s: s.follow(goal, goal, everybody))

    def _walk(
        self, limiter: Limiter, step: float, count: int, move: Callable[[Limiter], FloatArray]
    ) -> list[State]:
        scout = self._ready(step)
        scout.start_as(limiter, np.zeros(limiter.state.shape[1], dtype=bool))
        states = []
        for _ in range(count):
            move(scout)
            states.append(scout.state)
        return states

    def _ready(self, step: float) -> Limiter:
        if self._scout is None or self._step != step:
            self._scout, self._step = Limiter(self._limits, step), step
        return self._scout

    def _inside(
        self, limiter: Limiter, now: State, path: list[State], step: float, still: Flags
    ) -> bool:
        """Whether the reference is on the path and the path inside the limits."""
        units = (_ON_PATH, _ON_PATH / self._period, _ON_PATH / self._period**2)
        moves = ~still
        for x, y, unit in zip(now, path[0], units):
            if np.abs(x - y)[moves].max(initial=0.0) > unit:
                return False
        p, v, a = np.stack(path, axis=1)[:, :, moves]
        low, high = (x[moves] for x in limiter.range)
        return bool(
            (p >= low).all()
            and (p <= high).all()
            and (np.abs(v) <= limiter.v_max[moves]).all()
            and (np.abs(a) <= limiter.a_max[moves]).all()
            and (np.abs(np.diff(a, axis=0)) <= step * limiter.j_max[moves]).all()
        )


def _shown(state: State, position: FloatArray, still: Flags) -> State:
    shown = state.copy()
    shown[0, still] = position[still]
    shown[1:, still] = 0.0
    return shown
