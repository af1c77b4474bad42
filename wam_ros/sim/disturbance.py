"""What goes wrong in an episode: a block is moved, an arm is pushed, or the light goes down."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np

from wam_ros.contract.data import FloatArray
from wam_ros.contract.model import Contract
from wam_ros.sim.plant import Plant
from wam_ros.sim.scene import BLOCK_HALF, scene_for
from wam_ros.sim.seeds import stream
from wam_ros.sim.tasks import OBJECTS, arms

Kind = Literal["move", "push", "dark"]
KINDS: tuple[str, ...] = get_args(Kind)
DARK = 0.4
"""Share of the light that is left in the dark."""
PUSH_TIME = 0.2
"""Seconds that a push lasts."""
HAND_OFF = 0.10
"""No tool centre is nearer (m) to a block's old or new place when it is moved."""

LEAST_MOVE = 0.05
"""Distance (m) by which a block is moved at least."""
NUDGE_WINDOW = (1.5, 2.8)
"""Earliest and latest time (s) of a nudge; touches succeed after 2.1 s (median)."""
_TRIES = 200


@dataclass
class Disturbance:
    """One mishap at a moment of simulated time.

    The rollout calls `apply` at every step. A block is moved at ``time`` or as soon after as no
    hand is near its old or its new place; a push begins at ``time`` and lasts 0.2 s; light stays
    down until the plant is reset.

    Attributes
    ----------
    happened_at : float or None
        Simulated time at which it took place.
    """

    kind: Kind
    time: float
    target: str
    """The block's or the arm group's name; in the dark, that of the block it is about."""
    vector: FloatArray
    """The block's new centre (m) or the force (N), ``(3,)``, root frame."""
    happened_at: float | None = field(default=None)
    _pushing: bool = field(default=False, repr=False)

    @property
    def under_way(self) -> bool:
        """Whether a push has begun and not ended."""
        return self._pushing

    def apply(self, plant: Plant) -> bool:
        """Do what is due; True at the step at which it takes place."""
        now = plant.time
        if self._pushing and self.happened_at is not None and now >= self.happened_at + PUSH_TIME:
            plant.push(self.target, np.zeros(3))
            self._pushing = False
        if self.happened_at is not None or now < self.time:
            return False
        if self.kind == "push":
            plant.push(self.target, self.vector)
            self._pushing = True
        elif self.kind == "dark":
            plant.dim(DARK)
        else:
            objects = plant.objects()
            places = [objects[self.target], self.vector]
            tips = [plant.tip(g) for g in arms(plant.contract)]
            if min(float(np.linalg.norm(t - p)) for t in tips for p in places) < HAND_OFF:
                return False
            others = [p[:2] for n, p in objects.items() if n not in (self.target, "bowl")]
            if min(float(np.linalg.norm(o - self.vector[:2])) for o in others) < 3 * BLOCK_HALF:
                return False
            plant.move_object(self.target, self.vector)
        self.happened_at = now
        return True


def draw_nudge(contract: Contract, seed: int, group: str) -> Disturbance:
    """Draw a push of a hand about the time at which it has come to its block.

    Nothing in a dataset says otherwise that a hand which rests may be in the wrong place, and a
    policy that learns from it takes "at rest" for "there". The same arguments, the same push.
    """
    rng = stream(seed, "nudge")
    time = float(rng.uniform(*NUDGE_WINDOW))
    return Disturbance("push", time, group, _force(contract, rng))


def _force(contract: Contract, rng: np.random.Generator) -> FloatArray:
    direction = rng.normal(size=3)
    direction /= np.linalg.norm(direction)
    direction[2] = abs(direction[2])  # never down, into the table
    force: FloatArray = direction * rng.uniform(*scene_for(contract.robot).push)
    return force


def draw_disturbance(
    contract: Contract,
    blocks: dict[str, FloatArray],
    seed: int,
    *,
    target: str | None = None,
    group: str | None = None,
    window: tuple[float, float] = (0.4, 1.5),
    kind: Kind | None = None,
) -> Disturbance:
    """Draw one disturbance; the same arguments, the same disturbance.

    Parameters
    ----------
    blocks
        Where the blocks are at the start, centre ``(3,)`` each.
    target, group
        The block that is moved and the arm that is pushed; drawn when None. For recovery give
        those of the task.
    window
        Earliest and latest time, s.
    kind
        Drawn when None, of moves and pushes. Where the blocks lie so that there is no other place,
        a move becomes a push.
    """
    if kind == "dark":
        return Disturbance("dark", window[0], target or OBJECTS[0], np.zeros(3))
    rng = stream(seed, "disturbance")
    time = float(rng.uniform(*window))
    block = target or OBJECTS[int(rng.integers(len(OBJECTS)))]
    arm = group or arms(contract)[int(rng.integers(len(arms(contract))))]
    push = bool(rng.integers(2)) if kind is None else kind == "push"
    force = _force(contract, rng)
    scene = scene_for(contract.robot)
    low = np.array([scene.block_x[0], scene.block_y[0]])
    high = np.array([scene.block_x[1], scene.block_y[1]])
    others = [p[:2] for n, p in blocks.items() if n != block]
    for spot in rng.uniform(low, high, (_TRIES, 2)):
        clear = min(float(np.linalg.norm(spot - o)) for o in others) >= scene.spacing
        if clear and np.linalg.norm(spot - blocks[block][:2]) >= LEAST_MOVE:
            break
    else:
        push = True  # the blocks lie so that there is no other place
    place = np.array([*spot, scene.top + BLOCK_HALF])
    return (
        Disturbance("push", time, arm, force) if push else Disturbance("move", time, block, place)
    )
