"""Instructions the simulation understands, and when they count as done."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from wam_ros.contract.data import FloatArray
from wam_ros.contract.model import Contract

OBJECTS = ("red_block", "green_block", "blue_block")
NEAR = 0.03
"""Touched means the gripper's centre is within 3 cm of the block's centre ..."""
DWELL = 0.5
"""... for half a second."""

_VERB = re.compile(r"\b(touch|reach|tap|poke|approach)\b")
_NEGATION = re.compile(r"\b(not|don'?t|never|avoid|without)\b")
_COLOUR = re.compile(r"\b(red|green|blue)\b")
_SIDE = re.compile(r"\b(left|right)\b")


class InstructionError(ValueError):
    """An instruction nobody here understands; says what would be understood."""


@dataclass(frozen=True)
class TouchTask:
    """Bring the tool centre of arm group ``group`` to ``object``."""

    object: str
    group: str


def parse_instruction(text: str, contract: Contract) -> TouchTask:
    """Understand "touch the red block with the left hand" and its paraphrases.

    With one arm, or when no hand is named, the first arm of the contract is used.

    Raises
    ------
    InstructionError
        No verb, colour or hand that the simulation knows.
    """
    line = " ".join(text.lower().split())
    arms = [g.name for g in contract.groups if g.role == "arm"]
    colours = sorted(set(_COLOUR.findall(line)))
    example = "touch the red block" + (" with the left hand" if len(arms) > 1 else "")
    if not _VERB.search(line) or not colours or _NEGATION.search(line):
        raise InstructionError(
            f"cannot understand '{text}'; in simulation try '{example}' (red, green or blue)"
        )
    if len(colours) > 1:
        raise InstructionError(f"'{text}' names two blocks ({' and '.join(colours)}); name one")
    sides = sorted(set(_SIDE.findall(line)))
    if len(sides) > 1:
        raise InstructionError(f"'{text}' names both hands; name one")
    group = arms[0]
    if sides and len(arms) > 1:
        group = next(a for a in arms if a.startswith(sides[0]))
    return TouchTask(object=f"{colours[0]}_block", group=group)


class Judge:
    """Watches one task over time: distance, progress, success after the dwell time."""

    def __init__(self, task: TouchTask) -> None:
        self.task = task
        self.distance = float("nan")
        self._start: float | None = None
        self._near_since: float | None = None
        self.success = False

    def update(self, t: float, tip: FloatArray, target: FloatArray) -> None:
        """Take tip and object centre ``(3,)`` in metres at time ``t`` in seconds."""
        self.distance = float(np.linalg.norm(tip - target))
        if self._start is None:
            self._start = max(self.distance, NEAR)
        if self.distance > NEAR:
            self._near_since = None
        elif self._near_since is None:
            self._near_since = t
        elif t - self._near_since >= DWELL:
            self.success = True

    @property
    def progress(self) -> float:
        """0 at the starting distance, 1 when within reach of success."""
        if self._start is None or self._start <= NEAR:
            return float(self.success)
        return float(np.clip((self._start - self.distance) / (self._start - NEAR), 0.0, 1.0))
