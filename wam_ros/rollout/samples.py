"""Single training samples, hundreds per second, without physics, messages or files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wam_ros.contract.data import FloatArray, Observation
from wam_ros.contract.model import Contract
from wam_ros.perception.assemble import vector
from wam_ros.perception.images import fit
from wam_ros.policy.base import PolicyError, Window
from wam_ros.rollout.plan import EpisodePlan, plan_episode
from wam_ros.rollout.policies import teacher
from wam_ros.sim.language import Split
from wam_ros.sim.plant import Plant, Views
from wam_ros.sim.seeds import stream
from wam_ros.sim.variation import Scenes


@dataclass(frozen=True)
class Sample:
    """A moment on the teacher's way.

    ``frames`` are views ``(H, W, 3)`` uint8 by camera, oldest first, the last one at the moment
    itself; ``times`` are theirs, in s from it. ``state`` is ``(S,)`` and ``actions`` are the
    ``(horizon, A)`` absolute rows that follow, both in contract units and order. ``elapsed`` is in
    s from the start of the motion.
    """

    plan: EpisodePlan
    frames: tuple[dict[str, NDArray[np.uint8]], ...]
    times: tuple[float, ...]
    state: FloatArray
    actions: FloatArray
    elapsed: float
    objects: dict[str, FloatArray]


class Samples:
    """Draws samples: a scene, a sentence, and moments of the teacher's motion in it.

    The robot is where its last row said (no servo lag, no contacts), so the pictures of a moment
    cost what drawing costs. For the dynamics, run a `Rollout` with an observer.

    Parameters
    ----------
    width
        Pixels of the views; their height follows from the contract's view.
    split, base, tasks
        As in `plan_episode`.
    per_scene
        Moments per scene: a plan costs as much as many pictures.
    offsets
        When the frames of a sample were seen, in rows from its moment, oldest first, 0 last; may
        also be positive, for what a world model is to predict.
    early
        Power that draws moments to the start of the motion: 1 is uniform, 2 halves the median.
    """

    def __init__(
        self,
        contract: Contract,
        width: int = 64,
        split: Split = "train",
        base: int = 0,
        tasks: tuple[str, ...] = ("touch",),
        per_scene: int = 4,
        offsets: tuple[int, ...] = (0,),
        early: float = 1.0,
    ) -> None:
        self.contract = contract
        self.size = (width, max(2, round(width * contract.view_height / contract.view_width)))
        self._split, self._base, self._tasks = split, base, tasks
        self._per_scene, self._offsets, self._early = per_scene, offsets, early
        self._plant = Plant(contract)
        self._views = Views(self._plant, width)
        self._scenes = Scenes(contract)
        self._teacher = teacher(0.0)
        self._teacher.configure(contract)

    def stream(self, first: int = 0, scenes: int | None = None) -> Iterator[Sample]:
        """Samples of scenes ``first``, ``first + 1``, ... (``scenes`` of them, or without end)."""
        index = first
        while scenes is None or index < first + scenes:
            yield from self.scene(index)
            index += 1

    def scene(self, index: int) -> list[Sample]:
        """The samples of one scene; none when the teacher cannot do what it is asked there."""
        plan = plan_episode(self.contract, self._split, self._base, index, self._tasks)
        self._plant.apply(self._scenes.draw(plan.seed))
        objects = self._plant.objects()
        try:
            rows = self._motion(plan, objects)
        except PolicyError:
            return []
        horizon = self.contract.rates.horizon
        last = len(rows) - horizon - 1
        rng = stream(plan.seed, "moments")
        share = rng.random(self._per_scene) ** self._early
        moments = sorted(set((share * (last + 1)).astype(int).tolist()))
        return [self._sample(plan, rows, k, objects) for k in moments]

    def _motion(self, plan: EpisodePlan, objects: dict[str, FloatArray]) -> FloatArray:
        """Every row ``(N, A)`` of the motion, from the start until it rests and a chunk beyond."""
        contract, period = self.contract, self.contract.rates.step_period
        state = vector(contract, contract.state_names, self._plant.positions())
        self._teacher.play_seed = plan.seed
        self._teacher.reset(plan.instruction)
        parts: list[FloatArray] = []
        t, places = 0.0, [contract.action_names.index(n) for n in self._shared]
        for _ in range(40):
            window = Window((Observation(t, {}, state),), objects, cadence="async")
            chunk = self._teacher.infer(window)
            if parts:  # the last row was where the next chunk begins
                parts[-1] = parts[-1][:-1]
            parts.append(chunk.actions)
            if len(parts) > 1 and np.ptp(chunk.actions, axis=0).max() < 1e-4:
                break
            t += (chunk.horizon - 1) * period
            state = state.copy()
            state[self._columns] = chunk.actions[-1, places]
        return np.concatenate(parts)

    @property
    def _shared(self) -> tuple[str, ...]:
        return tuple(n for n in self.contract.state_names if n in self.contract.action_names)

    @property
    def _columns(self) -> list[int]:
        return [self.contract.state_names.index(n) for n in self._shared]

    def _sample(
        self, plan: EpisodePlan, rows: FloatArray, k: int, objects: dict[str, FloatArray]
    ) -> Sample:
        contract = self.contract
        period = contract.rates.step_period
        frames, times = [], []
        for offset in self._offsets:
            at = min(max(k + offset, 0), len(rows) - 1)
            qpos = self._plant.qpos_at(self._pose(rows[at]))
            frames.append(
                {
                    c.name: fit(self._views.render(c.name, qpos), *self.size)
                    for c in contract.cameras
                }
            )
            times.append((at - k) * period)
        pose = {**self._plant.positions(), **self._pose(rows[k])}
        return Sample(
            plan=plan,
            frames=tuple(frames),
            times=tuple(times),
            state=vector(contract, contract.state_names, pose),
            actions=rows[k + 1 : k + 1 + contract.rates.horizon],
            elapsed=k * period,
            objects=objects,
        )

    def _pose(self, row: FloatArray) -> dict[str, float]:
        """Joint positions that a row stands for."""
        shared = set(self._shared)
        return {
            n: float(v)
            for n, v in zip(self.contract.action_names, row.tolist(), strict=True)
            if n in shared
        }

    def close(self) -> None:
        """Free the GL contexts."""
        self._views.close()
