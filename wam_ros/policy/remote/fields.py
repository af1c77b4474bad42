"""From a contract's names to a protocol's fields."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from wam_ros.contract.data import FloatArray, Kind
from wam_ros.contract.model import Contract
from wam_ros.policy.base import PolicyError

DROID_STATE = ("joint_position", "gripper_position")
"""Keys that the DROID protocols know, in the order of their action columns."""


def droid_check(contract: Contract, protocol: str) -> None:
    """Raise PolicyError unless the contract has DROID's state and action keys (7 + 1 joints)."""
    for part, keys in (("state", contract.state), ("action", contract.action)):
        widths = {k.key: len(k.joints) for k in keys}
        if [widths.get(k) for k in DROID_STATE] != [7, 1]:
            raise PolicyError(
                f"{protocol} speaks of joint_position (7) and gripper_position (1) as DROID has "
                f"them, but {contract.robot} has the {part} keys {', '.join(widths)}; "
                "serve it with `wam serve --dialect native` and policy:=wam_serve"
            )


def droid_cameras(contract: Contract, zero_based: bool) -> dict[str, str]:
    """Camera name -> the wire's view name.

    DROID and openpi count exterior cameras from one, RoboArena from zero: its
    ``exterior_image_0_left`` is the model's ``exterior_image_1_left``.
    """
    names = {}
    for camera in contract.cameras:
        key = camera.model_key.removeprefix("video.")
        exterior = re.fullmatch(r"exterior_image_(\d+)_left", key)
        if exterior and zero_based:
            key = f"exterior_image_{int(exterior[1]) - 1}_left"
        if exterior or key == "wrist_image_left":
            names[camera.name] = f"observation/{key}"
    return names


def state_key(contract: Contract, key: str, state: FloatArray) -> FloatArray:
    """The slice ``(n,)`` of a state vector ``(S,)`` that is called ``key``."""
    for k in contract.state:
        if k.key == key:
            return state[k.start : k.stop]
    raise PolicyError(f"{contract.robot} has no state key '{key}'")


def droid_columns(contract: Contract) -> tuple[tuple[str, ...], tuple[Kind, ...]]:
    """Names and kinds of DROID's eight action columns."""
    by_key = {k.key: k for k in contract.action}
    names = tuple(n for key in DROID_STATE for n in by_key[key].joints)
    kinds: tuple[Kind, ...] = tuple(
        by_key[key].kind for key in DROID_STATE for _ in by_key[key].joints
    )
    return names, kinds


def resize(view: NDArray[np.uint8], size: tuple[int, int] | None) -> NDArray[np.uint8]:
    """``view`` ``(H, W, 3)`` at ``size`` (height, width), bilinear; as it is where None."""
    if size is None or view.shape[:2] == size:
        return view
    import cv2

    return np.asarray(cv2.resize(view, (size[1], size[0]), interpolation=cv2.INTER_LINEAR))


def letterbox(view: NDArray[np.uint8], aspect: float, side: int) -> NDArray[np.uint8]:
    """``view`` as a square of ``side`` pixels, black beside it, at the camera's true ``aspect``.

    The contract squeezes a camera's picture into the model's view; ``aspect`` (width / height of
    the camera) undoes that, as openpi's models saw unsqueezed pictures.
    """
    wide = aspect >= 1.0
    height = round(side / aspect) if wide else side
    width = side if wide else round(side * aspect)
    out = np.zeros((side, side, 3), np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    out[top : top + height, left : left + width] = resize(view, (height, width))
    return out
