"""Play: one hand after the other goes to places over the table, now and then down to a block."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from wam_ros.policy.errands import Stage, Wish, with_others
from wam_ros.policy.guide import HOVER, TOUCH, ArmGuide
from wam_ros.sim.scene import scene_for
from wam_ros.sim.seeds import stream
from wam_ros.sim.tasks import OBJECTS

STOPS = 64
"""Places drawn beforehand; after the last one it begins again."""
BLOCKS = 0.4
"""Share of the places that are blocks."""
HEIGHTS = (0.12, 0.28)
"""Heights (m) above the table of the places that are not."""
_THERE = 0.12  # s of travel at full speed within which a place counts as reached


class Play:
    """Places drawn by ``seed``; the only errand that does not depend on what is seen alone."""

    def __init__(self, robot: str, guides: Mapping[str, ArmGuide], seed: int) -> None:
        self._guides = guides
        self._step = 0
        rng, scene = stream(seed, "play"), scene_for(robot)
        names = tuple(guides)
        self._places: list[tuple[str, str | np.ndarray]] = []
        for _ in range(STOPS):
            arm = names[int(rng.integers(len(names)))]
            spot = [
                rng.uniform(*scene.block_x),
                rng.uniform(*scene.block_y),
                scene.top + rng.uniform(*HEIGHTS),
            ]
            block = OBJECTS[int(rng.integers(len(OBJECTS)))]
            self._places.append((arm, block if rng.random() < BLOCKS else np.array(spot)))

    def begin(self, stage: Stage) -> None:
        """Go on to the next place once the last one is reached."""
        stage.step = self._step
        self.wish(stage)
        self._step = stage.step

    def wish(self, stage: Stage) -> Wish:
        """What to do now."""
        arm, place = self._places[stage.step % STOPS]
        guide = self._guides[arm]
        q = stage.q[arm]
        if isinstance(place, str):
            point = stage.objects[place]
            push, left = guide.down_to(q, point, HOVER, TOUCH)
        else:
            point = place
            goal = guide.reach.goal(place).q
            left = guide.left(q, goal)
            tip = guide.reach.pose(q)[:3, 3]
            table = float(place[2]) - HEIGHTS[1]
            push = guide.rise(q, guide.towards(q, goal), float(tip[2]) - table, (0.05, HEIGHTS[0]))
        if left < _THERE:
            stage.step += 1
        return with_others(stage, self._guides, arm, point, push, left)
