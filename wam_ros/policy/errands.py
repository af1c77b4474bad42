"""What the teacher wants at a stage of a task, for touching, putting into the bowl, and playing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from wam_ros.contract.data import FloatArray
from wam_ros.policy.base import PolicyError
from wam_ros.policy.guide import (
    HOVER,
    TOUCH,
    ArmGuide,
    Push,
    aside,
    hold_up,
)
from wam_ros.policy.reach import Reach
from wam_ros.sim.tasks import TouchTask

REACHED = 0.005
"""Position error (m) up to which a posture counts as reaching its point."""
GRIPPER_RATE = 2.0
"""Share of its travel that a gripper covers per second in the teacher's imagination."""


@dataclass
class Stage:
    """Where everything is: joints ``(D,)`` by arm, gripper openings 0..1 by arm, object centres."""

    q: dict[str, FloatArray]
    opening: dict[str, float]
    objects: dict[str, FloatArray]
    carried: dict[str, str] = field(default_factory=dict)
    """Block that moves along with an arm's tool centre."""
    step: int = 0
    """Where in a fixed order of things a playing robot is."""

    def move(self, arm: str, by: FloatArray, reach: Reach) -> None:
        """Move one arm and what it carries."""
        block = self.carried.get(arm)
        if block is None:
            self.q[arm] = self.q[arm] + by
            return
        before = reach.pose(self.q[arm])[:3, 3]
        self.q[arm] = self.q[arm] + by
        self.objects[block] = self.objects[block] + reach.pose(self.q[arm])[:3, 3] - before

    def settle(self, wish: Wish, period: float) -> None:
        """Let the grippers follow."""
        most = GRIPPER_RATE * period
        for arm, goal in wish.opening.items():
            if arm in self.opening:
                least = wish.blocked.get(arm, 0.0)
                goal = max(goal, least)
                now = self.opening[arm]
                self.opening[arm] = now + float(np.clip(goal - now, -most, most))


@dataclass(frozen=True)
class Wish:
    """Motion of every arm, and how far grippers shall be open."""

    arms: dict[str, Push]
    opening: dict[str, float]
    blocked: dict[str, float] = field(default_factory=dict)
    """Opening below which a gripper cannot go, because a block is between its fingers."""


class Errand(Protocol):
    """A task under way. Only play has a memory: its place in a list drawn beforehand."""

    def begin(self, stage: Stage) -> None:
        """Look at the measured stage before the motion from there is imagined."""

    def wish(self, stage: Stage) -> Wish:
        """What to do now; PolicyError when the task cannot be done from here."""


def check(reach: Reach, point: FloatArray, what: str) -> None:
    """Raise PolicyError when ``point`` is out of reach."""
    short = reach.goal(point).error
    if short > REACHED:
        raise PolicyError(
            f"{reach.group.name} cannot reach {what} at {np.round(point, 3).tolist()}: "
            f"{short:.3f} m short"
        )


def with_others(
    stage: Stage,
    guides: Mapping[str, ArmGuide],
    own: str,
    point: FloatArray,
    push: Push,
    left: float,
    opening: float = 1.0,
) -> Wish:
    """Add the arms that make room; the acting hand waits for them."""
    pushes, slow = {}, 1.0
    for name, guide in guides.items():
        if name == own:
            continue
        place = aside(guide.reach, guides[own].reach, point)
        pushes[name] = guide.towards(stage.q[name], place)
        slow = min(slow, hold_up(left, guide.left(stage.q[name], place)))
    pushes[own] = Push(push.direction, push.share * slow)
    openings = {n: opening if n == own else 1.0 for n in guides}
    return Wish(pushes, openings)


class Touch:
    """The tool centre goes over the block and down onto it; the other hand makes room."""

    def __init__(self, task: TouchTask, guides: Mapping[str, ArmGuide]) -> None:
        self._task, self._guides = task, guides

    def begin(self, stage: Stage) -> None:
        """Nothing is carried."""

    def wish(self, stage: Stage) -> Wish:
        """What to do now."""
        own, target = self._task.group, stage.objects[self._task.object]
        guide = self._guides[own]
        check(guide.reach, target + np.array([0.0, 0.0, TOUCH]), self._task.object)
        push, left = guide.down_to(stage.q[own], target, HOVER, TOUCH)
        return with_others(stage, self._guides, own, target, push, left)
