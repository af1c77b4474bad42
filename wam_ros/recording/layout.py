"""How a contract's vectors, cameras and instruction are called in a DreamZero data set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from wam_ros.contract.model import Contract, VectorKey

STATE, ACTION = "observation.state", "action"
ORIGIN = "action_origin"
"""Column that tells who commanded a row: ``human`` or ``policy``."""

# Language columns each robot's training configuration reads. ``index`` columns hold row numbers of
# tasks.jsonl, ``text`` columns the sentence. AgiBot's own converter points its annotation at
# task_index, one number for the episode; we point at the column, which may change within it.
_LANGUAGE: dict[str, tuple[tuple[str, str], ...]] = {
    "agibot": (("language.action_text", "index"),),
    "oxe_droid": (
        ("language.language_instruction", "index"),
        ("language.language_instruction_2", "index"),
        ("language.language_instruction_3", "index"),
    ),
    "yam": (("task", "text"),),
}
NOT_PROVIDED = "not provided"
"""DROID only: the text of task 0, which the second and third language columns point at."""


@dataclass(frozen=True)
class Layout:
    """Names, slices and kinds of one data set.

    ``state`` and ``action`` map a sub-key to ``(start, end)`` of the vector, ``relative`` lists the
    keys that train relative to the state, ``language`` pairs an annotation with its column kind.
    """

    embodiment: str
    robot: str
    fps: float
    horizon: int
    state: dict[str, tuple[int, int]]
    action: dict[str, tuple[int, int]]
    relative: tuple[str, ...]
    cameras: dict[str, str]
    """Camera of the contract -> short video key."""
    language: tuple[tuple[str, str], ...]
    state_names: tuple[str, ...]
    action_names: tuple[str, ...]

    @property
    def first_tasks(self) -> tuple[str, ...]:
        """Tasks that come before those of the episodes."""
        return (NOT_PROVIDED,) if self.embodiment == "oxe_droid" else ()


def layout_of(contract: Contract) -> Layout:
    """Layout of a robot; an embodiment we do not know gets one text column, ``annotation.task``."""
    return Layout(
        embodiment=contract.embodiment,
        robot=contract.robot,
        fps=contract.rates.action,
        horizon=contract.rates.horizon,
        state=_slices(contract.state),
        action=_slices(contract.action),
        relative=tuple(k.key for k in contract.action if k.relative),
        cameras={c.name: c.model_key.removeprefix("video.") for c in contract.cameras},
        language=_LANGUAGE.get(contract.embodiment, (("task", "text"),)),
        state_names=contract.state_names,
        action_names=contract.action_names,
    )


def _slices(keys: tuple[VectorKey, ...]) -> dict[str, tuple[int, int]]:
    return {k.key: (k.start, k.stop) for k in keys}


def video_key(short: str) -> str:
    """Feature and folder name of a camera's video."""
    return f"observation.images.{short}"


def annotation_key(short: str) -> str:
    """Column of a language annotation."""
    return f"annotation.{short}"


def language_columns(layout: Layout, texts: list[str], tasks: list[str]) -> dict[str, list[Any]]:
    """Annotation columns of an episode from its instruction per row.

    The first annotation carries the instruction; further ``index`` columns (DROID has three
    paraphrases) point at task 0, "not provided", which the loader skips.
    """
    columns: dict[str, list[Any]] = {}
    index = {t: i for i, t in enumerate(tasks)}
    for number, (short, kind) in enumerate(layout.language):
        if kind == "text":
            columns[annotation_key(short)] = list(texts)
        elif number == 0:
            columns[annotation_key(short)] = [index[t] for t in texts]
        else:
            columns[annotation_key(short)] = [0] * len(texts)
    return columns
