"""Tasks of the simulation, and the instructions it understands."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wam_ros.contract.model import Contract
from wam_ros.sim.judge import DWELL, NEAR, Judge, judge_for

__all__ = [
    "DWELL", "NEAR", "OBJECTS", "BowlTask", "InstructionError", "Judge", "PlayTask", "Task",
    "TouchTask", "arms", "bowl_tasks", "chain", "gripper_of", "judge_for", "parse_instruction",
    "touch_tasks",
]  # fmt: skip

OBJECTS = ("red_block", "green_block", "blue_block")

_TOUCH = re.compile(r"\b(touch|reach|tap|poke|approach|make contact)\b")
_BRING = re.compile(r"\b(move|bring) (the|your)( left| right)? (hand|arm|gripper) to\b")
_GO = re.compile(r"\bgo to\b")
_PUT = re.compile(r"\b(put|place|drop|move|lay)\b.* in(to)? the bowl\b")
_PLAY = re.compile(r"(play( around)?|move (around|(your hands |the arms? )?over the table))")
_NEGATION = re.compile(r"\b(not|don'?t|never|avoid|without)\b")
_COLOUR = re.compile(r"\b(red|green|blue)\b")
_SIDE = re.compile(r"\b(left|right)\b")
_CHAIN = 0xC4A1  # keeps this stream of random numbers apart from others of the same seed


class InstructionError(ValueError):
    """An instruction nobody here understands; says what would be understood."""


@dataclass(frozen=True)
class TouchTask:
    """Bring the tool centre of arm group ``group`` to ``object``."""

    object: str
    group: str


@dataclass(frozen=True)
class BowlTask:
    """Put ``object`` into the bowl with arm group ``group``."""

    object: str
    group: str


@dataclass(frozen=True)
class PlayTask:
    """Move about without a goal; nothing to succeed in."""


Task = TouchTask | BowlTask | PlayTask


def arms(contract: Contract) -> tuple[str, ...]:
    """Names of the arm groups, in contract order."""
    return tuple(g.name for g in contract.groups if g.role == "arm")


def gripper_of(contract: Contract, arm: str) -> str | None:
    """Name of the gripper group that belongs to an arm group; None when there is none."""
    grippers = [g.name for g in contract.groups if g.role == "gripper"]
    side = arm.partition("_")[0]
    own = [g for g in grippers if g.startswith(side)] if len(arms(contract)) > 1 else grippers
    return own[0] if own else None


def parse_instruction(text: str, contract: Contract) -> Task:
    """Understand every sentence of `wam_ros.sim.language` and some more.

    With one arm, or when no hand is named, the first arm of the contract is used.

    Raises
    ------
    InstructionError
        No verb, colour or hand that the simulation knows.
    """
    line = " ".join(text.lower().split())
    if _PLAY.fullmatch(line):
        return PlayTask()
    groups = arms(contract)
    colours = sorted(set(_COLOUR.findall(line)))
    example = "touch the red block" + (" with the left hand" if len(groups) > 1 else "")
    put = bool(_PUT.search(line))
    touch = any(verb.search(line) for verb in (_TOUCH, _BRING, _GO))
    if put == touch or not colours or _NEGATION.search(line):
        raise InstructionError(
            f"cannot understand '{text}'; in simulation try '{example}' or "
            f"'put the red block in the bowl' (red, green or blue)"
        )
    if len(colours) > 1:
        raise InstructionError(f"'{text}' names two blocks ({' and '.join(colours)}); name one")
    sides = sorted(set(_SIDE.findall(line)))
    if len(sides) > 1:
        raise InstructionError(f"'{text}' names both hands; name one")
    group = groups[0]
    if sides and len(groups) > 1:
        group = next(a for a in groups if a.startswith(sides[0]))
    block = f"{colours[0]}_block"
    return BowlTask(block, group) if put else TouchTask(block, group)


def touch_tasks(contract: Contract) -> tuple[TouchTask, ...]:
    """Every block with every arm."""
    return tuple(TouchTask(o, g) for g in arms(contract) for o in OBJECTS)


def bowl_tasks(contract: Contract) -> tuple[BowlTask, ...]:
    """Every block into the bowl, with every arm that has a gripper."""
    able = [g for g in arms(contract) if gripper_of(contract, g)]
    return tuple(BowlTask(o, g) for g in able for o in OBJECTS)


def chain(
    contract: Contract, seed: int, count: int = 5, tasks: Sequence[Task] | None = None
) -> tuple[Task, ...]:
    """Draw ``count`` tasks to be done one after another, no block twice in a row.

    A robot is given the next instruction when it has done the last one, as in the five-step chains
    of the CALVIN benchmark; the score is the number done before the first failure.
    """
    choices: Sequence[Task] = touch_tasks(contract) if tasks is None else tasks
    rng = np.random.default_rng([_CHAIN, seed])
    drawn: list[Task] = []
    while len(drawn) < count:
        task = choices[int(rng.integers(len(choices)))]
        if drawn and getattr(task, "object", task) == getattr(drawn[-1], "object", None):
            continue
        drawn.append(task)
    return tuple(drawn)
