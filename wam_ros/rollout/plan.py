"""What each numbered episode is about: seed, task, sentence, mishap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wam_ros.contract.model import Contract
from wam_ros.sim.disturbance import Disturbance, draw_disturbance, draw_nudge
from wam_ros.sim.language import Split, say
from wam_ros.sim.seeds import episode_seed, stream
from wam_ros.sim.tasks import PlayTask, Task, bowl_tasks, touch_tasks
from wam_ros.sim.variation import Scenes

TASKS = ("touch", "bowl", "play")
BLOCK = 1_000_000
"""Episodes between two base seeds: collections with different ``--seed`` share no scene."""


@dataclass(frozen=True)
class EpisodePlan:
    """One episode: ``seed`` fixes its scene, ``mishap`` is whether something goes wrong in it,
    ``nudge`` whether the hand is pushed about the time at which it comes to rest."""

    index: int
    seed: int
    split: Split
    task: Task
    instruction: str
    mishap: bool
    then: tuple[tuple[float | None, str], ...] = ()
    """Further sentences: seconds after the first one, or None for when the one before is done."""
    nudge: bool = False

    def disturbances(self, contract: Contract, scenes: Scenes) -> list[Disturbance]:
        """The mishaps of this episode, fresh: they remember that they happened."""
        group = getattr(self.task, "group", None)
        found = []
        if self.mishap:
            blocks = scenes.draw(self.seed).blocks
            target = getattr(self.task, "object", None)
            found.append(draw_disturbance(contract, blocks, self.seed, target=target, group=group))
        if self.nudge and group:
            found.append(draw_nudge(contract, self.seed, group))
        return found


def plan_episode(
    contract: Contract,
    split: Split,
    base: int,
    index: int,
    tasks: Sequence[str] = ("touch",),
    mishaps: float = 0.0,
    sentences: Split | None = None,
    chain: float = 0.0,
    nudges: float = 0.0,
) -> EpisodePlan:
    """Episode ``index`` of base seed ``base``; the same arguments, the same episode.

    Parameters
    ----------
    split
        Whether scenes are those for training or the held-out ones.
    tasks
        Kinds to draw from, each as often as the others: touch, bowl, play.
    mishaps
        Share 0..1 of episodes with a `Disturbance`.
    sentences
        Split of the sentences, when it is not ``split``.
    chain
        Share 0..1 of episodes in which one or two more sentences follow: half of them when the one
        before is done, half of them while the arm is on its way.
    nudges
        Share 0..1 of episodes in which the hand is pushed about when it comes to rest.

    Raises
    ------
    ValueError
        Unknown kind of task, or one that this robot cannot do.
    """
    seed = episode_seed(split, base * BLOCK + index)
    rng = stream(seed, "task")
    kind = tasks[int(rng.integers(len(tasks)))]
    if kind not in TASKS:
        raise ValueError(f"unknown task '{kind}'; there are {', '.join(TASKS)}")
    choices: Sequence[Task] = (
        touch_tasks(contract)
        if kind == "touch"
        else (bowl_tasks(contract) if kind == "bowl" else (PlayTask(),))
    )
    if not choices:
        raise ValueError(f"{contract.robot} has nothing to do in task '{kind}'")
    task = choices[int(rng.integers(len(choices)))]
    sentence = say(task, contract, sentences or split, rng)
    mishap = bool(rng.random() < mishaps)
    more = _chain(choices, contract, sentences or split, rng) if rng.random() < chain else ()
    nudge = bool(rng.random() < nudges)
    return EpisodePlan(index, seed, split, task, sentence, mishap, more, nudge)


def _chain(
    choices: Sequence[Task], contract: Contract, split: Split, rng: np.random.Generator
) -> tuple[tuple[float | None, str], ...]:
    out: list[tuple[float | None, str]] = []
    for _ in range(int(rng.integers(1, 3))):
        task = choices[int(rng.integers(len(choices)))]
        last = out[-1][0] if out else 0.0
        interrupts = last is not None and rng.random() < 0.5
        when = last + float(rng.uniform(0.5, 2.0)) if interrupts and last is not None else None
        out.append((when, say(task, contract, split, rng)))
    return tuple(out)
