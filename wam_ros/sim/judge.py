"""When a task counts as done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from wam_ros.contract.data import FloatArray
from wam_ros.sim.scene import BOWL_HEIGHT, BOWL_RADIUS

if TYPE_CHECKING:
    from wam_ros.sim.plant import Plant
    from wam_ros.sim.tasks import BowlTask, PlayTask, Task, TouchTask

NEAR = 0.03
"""Touched means the gripper's centre is within 3 cm of the block's centre ..."""
DWELL = 0.5
"""... for half a second."""
OPEN = 0.5
"""Share of its travel by which the gripper must be open, or ..."""
AWAY = 0.08
"""... the distance (m) between tool centre and block, for a block to have been let go."""


class TaskJudge(Protocol):
    """Watches one task over time.

    Attributes
    ----------
    distance
        What is left, m: from the tool centre to the block, or from the block to the bowl.
    success
        True from the moment the task is done; it does not fall back.
    """

    distance: float
    success: bool

    @property
    def progress(self) -> float:
        """0 at the start, 1 within reach of success."""

    def watch(self, plant: Plant) -> None:
        """Look at the plant as it is now; call at least every 0.1 s of simulated time."""


class _Dwell:
    """Whether something has been true without a break for `DWELL` seconds."""

    def __init__(self) -> None:
        self._since: float | None = None

    def update(self, t: float, holds: bool) -> bool:
        if not holds:
            self._since = None
        elif self._since is None:
            self._since = t
        # Half a nanosecond of slack: times are sums of 2 ms steps.
        return self._since is not None and t - self._since >= DWELL - 5e-10


class Judge:
    """Touch: the tool centre stays near the block."""

    def __init__(self, task: TouchTask) -> None:
        self.task = task
        self.distance = float("nan")
        self._start: float | None = None
        self._dwell = _Dwell()
        self.success = False

    def watch(self, plant: Plant) -> None:
        """Look at the plant as it is now."""
        self.update(plant.time, plant.tip(self.task.group), plant.objects()[self.task.object])

    def update(self, t: float, tip: FloatArray, target: FloatArray) -> None:
        """Take tip and object centre ``(3,)`` in metres at time ``t`` in seconds."""
        self.distance = float(np.linalg.norm(tip - target))
        if self._start is None:
            self._start = max(self.distance, NEAR)
        if self._dwell.update(t, self.distance <= NEAR):
            self.success = True

    @property
    def progress(self) -> float:
        """0 at the starting distance, 1 when within reach of success."""
        if self._start is None or self._start <= NEAR:
            return float(self.success)
        return float(np.clip((self._start - self.distance) / (self._start - NEAR), 0.0, 1.0))


class BowlJudge:
    """Put in the bowl: the block lies inside the rim, below it, and has been let go."""

    def __init__(self, task: BowlTask, gripper: str, travel: tuple[float, float]) -> None:
        self.task = task
        self.distance = float("nan")
        self._gripper = gripper
        self._closed, self._open = travel
        self._reach: float | None = None
        self._way: float | None = None
        self._best = 0.0
        self._dwell = _Dwell()
        self.success = False

    def watch(self, plant: Plant) -> None:
        """Look at the plant as it is now."""
        objects = plant.objects()
        position = plant.positions()[self._gripper]
        share = (position - self._closed) / (self._open - self._closed)
        self.update(
            plant.time,
            plant.tip(self.task.group),
            objects[self.task.object],
            objects["bowl"],
            share,
        )

    def update(
        self, t: float, tip: FloatArray, block: FloatArray, bowl: FloatArray, opening: float
    ) -> None:
        """Take tip, block and bowl ``(3,)`` in metres and the gripper's opening, 0 shut, 1 open.

        The bowl's position is the middle of its foot.
        """
        sideways = float(np.hypot(*(block - bowl)[:2]))
        height = float(block[2] - bowl[2])
        reach = float(np.linalg.norm(tip - block))
        self.distance = float(np.hypot(sideways, max(0.0, height - BOWL_HEIGHT)))
        if self._reach is None or self._way is None:
            self._reach, self._way = max(reach, NEAR + 1e-6), max(sideways, BOWL_RADIUS + 1e-6)
        inside = sideways < BOWL_RADIUS and 0.0 < height < BOWL_HEIGHT
        let_go = opening >= OPEN or reach > AWAY
        # A quarter for reaching the block, half for its way to the bowl, a quarter for letting go.
        near = np.clip((self._reach - reach) / (self._reach - NEAR), 0.0, 1.0)
        way = np.clip((self._way - sideways) / (self._way - BOWL_RADIUS), 0.0, 1.0)
        reached = 1.0 if inside else float(near)
        self._best = max(
            self._best,
            0.25 * reached + 0.5 * float(way) * (reached > 0.5) + 0.25 * (inside and let_go),
        )
        if self._dwell.update(t, inside and let_go):
            self.success = True

    @property
    def progress(self) -> float:
        """Best so far: a quarter each for reaching and for letting go, half for the way."""
        return 1.0 if self.success else min(self._best, 1.0)


class PlayJudge:
    """Play has no goal and never succeeds."""

    distance = float("nan")
    success = False
    progress = 0.0

    def __init__(self, task: PlayTask) -> None:
        self.task = task

    def watch(self, plant: Plant) -> None:
        """Nothing to see."""


def judge_for(task: Task, plant: Plant) -> TaskJudge:
    """Make the judge of ``task``."""
    from wam_ros.sim.tasks import BowlTask, TouchTask, gripper_of

    if isinstance(task, TouchTask):
        return Judge(task)
    if isinstance(task, BowlTask):
        name = gripper_of(plant.contract, task.group)
        if name is None:
            raise ValueError(f"{task.group} has no gripper; it cannot put a block in the bowl")
        group = plant.contract.group(name)
        travel = (float(group.closed_value or 0.0), float(group.open_value or 0.0))
        return BowlJudge(task, group.joints[0].name, travel)
    return PlayJudge(task)
