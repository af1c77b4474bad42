"""What the released models know about each robot: keys and their order, cameras, prompt, layout.

An embodiment selects prompt, view layout, key order and statistics; no weight depends on it. The
facts here are defaults; a checkpoint's ``experiment_cfg`` overrides keys and relative keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Layout = Literal["wrist_on_top", "grid"]
Keys = tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Embodiment:
    """A robot as the model sees it.

    Attributes
    ----------
    tag, number
        Name in the checkpoint, and the label the release gives it.
    template
        Which prompt it gets (see `prompts`); None where the release has none.
    layout
        How three views become one image (see `views`).
    cameras
        Names of view 0, 1, 2 in this order.
    state, action
        ``(key, dimensions)`` in the order of the state and action vectors.
    relative
        Action keys that the model gives relative to the state of the observation.
    """

    tag: str
    number: int
    template: str | None = None
    layout: Layout = "grid"
    cameras: tuple[str, ...] = ()
    state: Keys = ()
    action: Keys = ()
    relative: tuple[str, ...] = ()


_AGIBOT: Keys = (
    ("left_arm_joint_position", 7),
    ("right_arm_joint_position", 7),
    ("left_effector_position", 1),
    ("right_effector_position", 1),
    ("head_position", 2),
    ("waist_position", 2),
)
_DROID: Keys = (("joint_position", 7), ("gripper_position", 1))
_YAM: Keys = (
    ("left_joint_pos", 6),
    ("left_gripper_pos", 1),
    ("right_joint_pos", 6),
    ("right_gripper_pos", 1),
)

EMBODIMENTS: dict[str, Embodiment] = {
    e.tag: e
    for e in (
        Embodiment(
            "oxe_droid",
            17,
            template="droid",
            layout="wrist_on_top",
            cameras=("exterior_image_1_left", "exterior_image_2_left", "wrist_image_left"),
            state=_DROID,
            action=_DROID,
            relative=("joint_position",),
        ),
        Embodiment(
            "agibot",
            26,
            template="head_and_hands",
            cameras=("top_head", "hand_left", "hand_right"),
            state=_AGIBOT,
            action=(*_AGIBOT, ("robot_velocity", 2)),
            relative=tuple(key for key, _ in _AGIBOT),
        ),
        Embodiment(
            "yam",
            32,
            template="top_and_sides",
            cameras=("top_camera-images-rgb", "left_camera-images-rgb", "right_camera-images-rgb"),
            state=_YAM,
            action=_YAM,
            relative=tuple(key for key, _ in _YAM),
        ),
        Embodiment("xdof", 22, template="head_and_hands"),
        Embodiment("gr1_unified", 24, template="human"),
        Embodiment("mecka_hands", 27, template="human"),
        Embodiment("lapa", 27),
        Embodiment("dream", 31),
    )
}


def embodiment(tag: str) -> Embodiment:
    """Look up an embodiment by its tag.

    Raises
    ------
    ValueError
        If the tag is unknown; names the known ones.
    """
    if tag not in EMBODIMENTS:
        raise ValueError(f"no embodiment '{tag}'; known are {', '.join(EMBODIMENTS)}")
    return EMBODIMENTS[tag]
