"""Run a policy over many held-out episodes in the dynamic simulation."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass, field
from typing import Any

from wam_ros.contract import load_contract
from wam_ros.evaluation import EpisodeRecord
from wam_ros.rollout.episode import Episode
from wam_ros.rollout.loop import Rollout
from wam_ros.rollout.plan import BLOCK, plan_episode
from wam_ros.rollout.policies import make_policy
from wam_ros.rollout.records import record_of
from wam_ros.rollout.settings import Settings
from wam_ros.sim.disturbance import draw_disturbance
from wam_ros.sim.language import Split, say
from wam_ros.sim.seeds import episode_seed, stream
from wam_ros.sim.tasks import arms, chain
from wam_ros.sim.variation import Randomisation, Scenes
from wam_ros.workers import worker_pool

SPLITS: dict[str, tuple[Split, Split]] = {
    "placements": ("held_out", "train"),
    "paraphrases": ("held_out", "held_out"),
    "train": ("train", "train"),
}
"""What is new to a policy -> split of the scenes, split of the sentences."""
TASKS = ("touch", "bowl", "chain")
CHAIN = 5


@dataclass(frozen=True)
class Condition:
    """A policy under one cadence, judged on one task and split.

    Attributes
    ----------
    label
        How the policy is called in tables.
    backend, options
        As `policy.registry.make` takes them.
    latency
        Seconds a call costs; None measures, except for the scripted teacher, which takes 0.1.
    deadline
        Seconds per instruction.
    render_width, camera_delay, camera_rate
        See `Settings`; width and delay are by default as the simulation's node has them.
    mishaps
        Share 0..1 of episodes in which a block is moved or an arm pushed, once.

    Raises
    ------
    ValueError
        A value is unknown or out of range.
    """

    label: str
    backend: str
    cadence: str
    task: str = "touch"
    split: str = "placements"
    robot: str = "agibot_g1"
    seed: int = 0
    options: dict[str, Any] = field(default_factory=dict)
    latency: float | None = None
    period: float = 1.0 / 7.0
    deadline: float = 10.0
    render_width: int = 320
    camera_delay: float = 0.05
    mishaps: float = 0.0
    randomise: bool = True
    camera_rate: float | None = None

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise ValueError(f"unknown task '{self.task}'; there are {', '.join(TASKS)}")
        if self.split not in SPLITS:
            raise ValueError(f"unknown split '{self.split}'; there are {', '.join(SPLITS)}")
        if self.seed < 0:
            raise ValueError(f"seed {self.seed}: seeds start at 0")
        if not 0.0 <= self.mishaps <= 1.0:
            raise ValueError(f"mishaps {self.mishaps:g}: a share of the episodes, 0 to 1")
        for name in ("period", "deadline", "render_width", "camera_rate"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} {value:g} must be above 0")
        for name in ("latency", "camera_delay"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} {value:g} must not be negative")

    @property
    def charged(self) -> float | str:
        """The rollout's ``latency``."""
        if self.latency is not None:
            return self.latency
        return 0.1 if self.backend == "scripted" else "measured"


class Evaluator:
    """Runs the episodes of one condition in this process."""

    def __init__(self, condition: Condition) -> None:
        c = self.condition = condition
        self.contract = load_contract(c.robot)
        self._scenes = Scenes(self.contract, None if c.randomise else Randomisation.none())
        latency = c.charged if isinstance(c.charged, float) else 0.1
        self.rollout = Rollout(
            self.contract,
            make_policy(c.backend, c.options, latency),
            cadence=c.cadence,
            latency=c.charged,
            settings=Settings(
                render_width=c.render_width,
                camera_delay=c.camera_delay,
                camera_rate=c.camera_rate,
                period=c.period,
            ),
            scenes=self._scenes,
        )

    def episode(self, index: int) -> tuple[EpisodeRecord, str]:
        """Run episode ``index``; its scene and sentence do not depend on policy and cadence.

        Also returns why the policy gave up or the executor stopped, if one did.
        """
        c = self.condition
        if c.task == "chain":
            return self._chain(index)
        scenes, sentences = SPLITS[c.split]
        plan = plan_episode(self.contract, scenes, c.seed, index, (c.task,), c.mishaps, sentences)
        found = self.rollout.run(
            plan.instruction,
            c.deadline,
            seed=plan.seed,
            disturbances=plan.disturbances(self.contract, self._scenes),
        )
        acting = (plan.task.group,) if hasattr(plan.task, "group") else ()
        return self._record(found, acting)

    def _chain(self, index: int) -> tuple[EpisodeRecord, str]:
        """Five instructions, each said when the one before was carried out."""
        c = self.condition
        scenes, sentences = SPLITS[c.split]
        seed = episode_seed(scenes, c.seed * BLOCK + index)
        rng = stream(seed, "chain")
        texts = [say(t, self.contract, sentences, rng) for t in chain(self.contract, seed, CHAIN)]
        mishaps = []
        if rng.random() < c.mishaps:
            blocks = self._scenes.draw(seed).blocks
            mishaps.append(draw_disturbance(self.contract, blocks, seed))
        found = self.rollout.run(
            texts[0],
            c.deadline * CHAIN,
            seed=seed,
            then=[(None, text) for text in texts[1:]],
            disturbances=mishaps,
            patience=c.deadline,
        )
        return self._record(found, arms(self.contract), CHAIN)

    def _record(
        self, found: Episode, acting: tuple[str, ...], chain: int = 1
    ) -> tuple[EpisodeRecord, str]:
        c = self.condition
        record = record_of(found, self.contract, c.label, c.task, c.split, acting, chain)
        return record, found.error or found.stopped

    def close(self) -> None:
        """Let policy and GL contexts go."""
        self.rollout.close()


_worker: Evaluator | None = None


def _begin(condition: Condition) -> None:
    global _worker
    _worker = Evaluator(condition)


def _episode(index: int) -> tuple[EpisodeRecord, str]:
    assert _worker is not None
    return _worker.episode(index)


def evaluate(
    conditions: Sequence[Condition],
    episodes: int,
    jobs: int = 1,
    progress: Callable[[Condition, EpisodeRecord, str], None] = lambda _c, _r, _e: None,
) -> list[EpisodeRecord]:
    """Run ``episodes`` episodes of every condition; records by condition, then by number.

    ``progress`` is called with every record as it comes, and why its policy gave up, if it did.
    With more than one job the processes share the machine, and measured latencies show it.

    Raises
    ------
    PolicyError, ValueError
        A policy cannot be set up; says why.
    """
    records: list[EpisodeRecord] = []
    for condition in conditions:
        found: dict[int, EpisodeRecord] = {}
        if jobs <= 1:
            evaluator = Evaluator(condition)
            for index in range(episodes):
                found[index], error = evaluator.episode(index)
                progress(condition, found[index], error)
            evaluator.close()
        else:
            # Set before the children import torch; threads that wait for each other cost both.
            cores = (os.cpu_count() or 1) // jobs
            os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores)))
            with worker_pool(jobs, _begin, (condition,)) as pool:
                waiting = {pool.submit(_episode, i): i for i in range(episodes)}
                for done in as_completed(waiting):
                    record, error = done.result()
                    found[waiting[done]] = record
                    progress(condition, record, error)
        records += [found[i] for i in range(episodes)]
    return records
