"""What the simulated robot can be told: sentences for tasks, in two splits that share no sentence.

A policy is trained on ``train`` sentences and judged on ``held_out`` ones. Most held-out sentences
are new arrangements of words that occur in training; a few (`NEW_VERBS`) have a verb that does not.
`wam_ros.sim.tasks.parse_instruction` understands them all.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np

from wam_ros.contract.model import Contract
from wam_ros.sim.tasks import BowlTask, PlayTask, Task, TouchTask, arms

Split = Literal["train", "held_out"]
SPLITS: tuple[Split, ...] = ("train", "held_out")

TOUCH: dict[Split, tuple[str, ...]] = {
    "train": (
        "touch the {colour} block{ with the SIDE hand}",
        "touch the {colour} cube{ with your SIDE hand}",
        "reach the {colour} block{ with the SIDE hand}",
        "reach for the {colour} block{ with your SIDE arm}",
        "tap the {colour} cube{ with the SIDE gripper}",
        "approach the {colour} block{ with the SIDE gripper}",
        "{with the SIDE hand, }touch the {colour} block",
        "{with your SIDE arm, }reach for the {colour} cube",
        "{use the SIDE hand to }tap the {colour} block",
        "{use your SIDE gripper to }approach the {colour} cube",
        "move the {SIDE }hand to the {colour} block",
        "move your {SIDE }gripper to the {colour} cube",
        "bring the {SIDE }arm to the {colour} block",
        "bring your {SIDE }hand to the {colour} cube",
        "go to the {colour} block{ with the SIDE hand}",
        "now touch the {colour} block{ with the SIDE hand}",
    ),
    "held_out": (
        "{use your SIDE arm to }touch the {colour} cube",
        "{with the SIDE gripper, }tap the {colour} block",
        "reach for the {colour} cube{ with the SIDE gripper}",
        "move your {SIDE }arm to the {colour} block",
        "bring the {SIDE }gripper to the {colour} cube",
        "go to the {colour} cube{ with your SIDE arm}",
        "now approach the {colour} block{ with your SIDE hand}",
        "{use the SIDE hand to }reach the {colour} cube",
        "poke the {colour} block{ with the SIDE hand}",
        "make contact with the {colour} cube{ using the SIDE hand}",
    ),
}
BOWL: dict[Split, tuple[str, ...]] = {
    "train": (
        "put the {colour} block in the bowl{ with the SIDE hand}",
        "put the {colour} cube into the bowl{ with your SIDE hand}",
        "place the {colour} block in the bowl{ with the SIDE gripper}",
        "{with the SIDE hand, }put the {colour} block into the bowl",
        "{use your SIDE arm to }place the {colour} cube in the bowl",
        "move the {colour} block into the bowl{ with the SIDE hand}",
    ),
    "held_out": (
        "{use the SIDE hand to }put the {colour} cube in the bowl",
        "place the {colour} block into the bowl{ with your SIDE arm}",
        "{with your SIDE gripper, }move the {colour} cube into the bowl",
        "drop the {colour} block into the bowl{ with the SIDE hand}",
    ),
}
PLAY: dict[Split, tuple[str, ...]] = {
    "train": ("move around", "play", "move your hands over the table"),
    "held_out": ("play around", "move over the table"),
}
NEW_VERBS = ("poke", "make contact", "drop")
"""Beginnings of the held-out sentences whose verb never occurs in training."""


def templates(task: Task, split: Split) -> tuple[str, ...]:
    """Sentence patterns for a kind of task; ``{...SIDE...}`` falls away on a robot with one arm."""
    if split not in SPLITS:
        raise ValueError(f"unknown split '{split}'; there are {' and '.join(SPLITS)}")
    if isinstance(task, TouchTask):
        return TOUCH[split]
    return BOWL[split] if isinstance(task, BowlTask) else PLAY[split]


def fill(template: str, task: Task, contract: Contract) -> str:
    """Write out one pattern for ``task``; the hand is named where the robot has two arms."""
    if isinstance(task, PlayTask):
        return template
    two = len(arms(contract)) > 1
    colour, side = task.object.removesuffix("_block"), task.group.partition("_")[0]
    text = ""
    for part in template.split("{"):
        inside, closed, after = part.partition("}")
        if not closed:
            text += part
        elif inside == "colour":
            text += colour + after
        else:
            text += (inside.replace("SIDE", side) if two else "") + after
    return text


def phrases(task: Task, contract: Contract, split: Split) -> tuple[str, ...]:
    """All sentences of a split for ``task``.

    Where one arm needs no mention of a hand, some held-out sentences would equal one of training;
    they are left out.
    """
    filled = tuple(fill(t, task, contract) for t in templates(task, split))
    if split == "train":
        return filled
    return tuple(text for text in filled if text not in phrases(task, contract, "train"))


def say(task: Task, contract: Contract, split: Split, seed: int | np.random.Generator) -> str:
    """Draw a sentence for ``task``; the same seed, the same sentence."""
    rng = np.random.default_rng(seed)
    choices = phrases(task, contract, split)
    return choices[int(rng.integers(len(choices)))]


def sentences(contract: Contract, split: Split, tasks: tuple[Task, ...]) -> Iterator[str]:
    """Every sentence of a split for ``tasks``, e.g. to build a vocabulary (from ``train`` only)."""
    for task in tasks:
        yield from phrases(task, contract, split)
