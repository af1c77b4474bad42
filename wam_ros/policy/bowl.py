"""How the teacher puts a block into the bowl: which phase it is in is read off the scene.

Closed fingers around the block mean it is held, a held block is carried, a block inside the rim
means done. A block that slips is simply approached again.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from wam_ros.contract.data import FloatArray
from wam_ros.policy.errands import Stage, Wish, check, with_others
from wam_ros.policy.guide import HOVER, ArmGuide, Push
from wam_ros.sim.scene import BLOCK_HALF, BOWL_HEIGHT, BOWL_RADIUS
from wam_ros.sim.tasks import BowlTask

GRIP = 0.008
"""Height (m) of the tool centre above the block's centre when the fingers close."""
CLOSE = (0.008, 0.006)
"""Horizontal and vertical distance (m) from that place at which they begin to."""
CARRY = 0.17
"""Height (m) above the bowl's foot at which a block is carried, and ..."""
RELEASE = BOWL_HEIGHT + BLOCK_HALF + 0.02
"""... that at which it is let go."""
OVER = 0.022
"""Horizontal distance (m) between block and bowl at which the fingers open."""
_AROUND = 0.07  # opening beyond the block's width at which fingers still hold it
_HOLD_STILL = 0.03


class Bowl:
    """Approach, grip, lift, carry, lower, let go, retreat; ``width`` is the hand's opening (m)."""

    def __init__(self, task: BowlTask, guides: Mapping[str, ArmGuide], width: float) -> None:
        self._task, self._guides = task, guides
        self._guide = guides[task.group]
        self._share = 2.0 * BLOCK_HALF / width

    def begin(self, stage: Stage) -> None:
        """A held block moves along."""
        if self._held(stage, self._tip(stage)):
            stage.carried[self._task.group] = self._task.object

    def wish(self, stage: Stage) -> Wish:
        """What to do now."""
        own = self._task.group
        block, bowl = stage.objects[self._task.object], stage.objects["bowl"]
        tip, opening = self._tip(stage), stage.opening[own]
        q = stage.q[own]
        still = Push(np.zeros_like(q), 0.0)
        aside = float(np.hypot(*(block - bowl)[:2]))
        near = float(np.linalg.norm(tip - block)) < 2.0 * _HOLD_STILL
        if aside < BOWL_RADIUS and block[2] - bowl[2] < BOWL_HEIGHT:
            push = still if near and opening < 0.8 else self._retreat(q, tip, bowl)
            return self._with(stage, bowl, push, 0.0, 1.0)
        if self._held(stage, tip) and not (aside < OVER and tip[2] - bowl[2] < RELEASE + 0.015):
            check(self._guide.reach, bowl + np.array([0.0, 0.0, RELEASE]), "the bowl")
            # The block's centre, not the hand's, belongs over the bowl.
            goal = bowl + np.array([*(tip - block)[:2], 0.0])
            push, left = self._guide.down_to(q, goal, CARRY, RELEASE)
            return self._with(stage, bowl, push, left, 0.0)
        if aside < BOWL_RADIUS and near:  # let go over the bowl, about to fall
            self._drop(stage)
            return self._with(stage, bowl, still, 0.0, 1.0)
        check(self._guide.reach, block + np.array([0.0, 0.0, GRIP]), self._task.object)
        push, left = self._guide.down_to(q, block, HOVER, GRIP)
        off = tip - block - np.array([0.0, 0.0, GRIP])
        close = float(np.hypot(*off[:2])) < CLOSE[0] and abs(off[2]) < CLOSE[1]
        empty = opening < self._share - _AROUND
        wish = self._with(stage, block, push, left, 0.0 if close and not empty else 1.0)
        if close and not empty and self._held(stage, tip):
            stage.carried[own] = self._task.object
        return wish

    # ---- what can be seen ----------------------------------------------------------------------

    def _tip(self, stage: Stage) -> FloatArray:
        return np.asarray(self._guide.reach.pose(stage.q[self._task.group])[:3, 3])

    def _held(self, stage: Stage, tip: FloatArray) -> bool:
        off = stage.objects[self._task.object] - tip
        between = bool(np.hypot(*off[:2]) < 0.02 and abs(off[2] + GRIP) < 0.02)
        return between and abs(stage.opening[self._task.group] - self._share) < _AROUND

    # ---- what follows --------------------------------------------------------------------------

    def _retreat(self, q: FloatArray, tip: FloatArray, bowl: FloatArray) -> Push:
        """Straight up out of the bowl, then home."""
        home = self._guide.towards(q, self._guide.reach.home)
        return self._guide.rise(q, home, float(tip[2] - bowl[2]), (RELEASE, CARRY))

    def _drop(self, stage: Stage) -> None:
        if stage.opening[self._task.group] > self._share + _AROUND:
            stage.carried.pop(self._task.group, None)
            foot = stage.objects["bowl"]
            at = stage.objects[self._task.object]
            stage.objects[self._task.object] = np.array([*at[:2], foot[2] + 0.008 + BLOCK_HALF])

    def _with(
        self, stage: Stage, point: FloatArray, push: Push, left: float, opening: float
    ) -> Wish:
        wish = with_others(stage, self._guides, self._task.group, point, push, left, opening)
        if opening < self._share:
            wish.blocked[self._task.group] = self._share
        elif opening > self._share and self._task.group in stage.carried:
            stage.carried.pop(self._task.group)
        return wish
