"""Whether a chunk may be spliced into the motion, and where its rows go."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wam_ros.contract.data import ActionChunk, FloatArray
from wam_ros.execution.limiter import Flags
from wam_ros.execution.place import CLOSE, Targets, place, savgol
from wam_ros.execution.settings import Settings

_EARLY = 0.5  # s that a stamp may lie ahead of our clock


@dataclass(frozen=True)
class Joints:
    """The commanded joints: names, range ``(D,)`` each, and which are grippers ``(D,)``."""

    names: tuple[str, ...]
    lower: FloatArray
    upper: FloatArray
    gripper: Flags


def untimely(chunk: ActionChunk, now: float, newest_t0: float, settings: Settings) -> str:
    """Why the stamp of a chunk does not do, or an empty string; ``now`` in the stamp's time."""
    age = now - chunk.t0
    if age > settings.chunk_age:
        return f"it is {age:.2f} s old, more than {settings.chunk_age} s"
    if age < -_EARLY:
        return f"its stamp is {-age:.2f} s ahead; are the machines' clocks in step?"
    if chunk.t0 <= newest_t0:
        return "it is not newer than the last one"
    return ""


def fit_in(
    chunk: ActionChunk, joints: Joints, start: float, time: float, settings: Settings
) -> tuple[Targets, str]:
    """Rows of ``chunk`` with row 0 due at ``start``, and why they do not do at path time ``time``.

    Rows a little outside a joint's range are clipped to it.
    """
    placed, excess = place(chunk, joints.names, start, joints.lower, joints.upper)
    worst = int(np.argmax(excess))
    if excess[worst] > settings.reanchor_cap:
        return placed, f"a row lies {excess[worst]:.3g} beyond the range of {joints.names[worst]}"
    if placed.times[-1] <= time + CLOSE * chunk.step_period:
        return placed, f"all {chunk.horizon} rows lie in the past"
    if settings.savgol:
        smooth = np.clip(savgol(placed.rows), joints.lower, joints.upper)
        smooth = np.where(joints.gripper, placed.rows, smooth)  # a grip is not faded in
        placed = Targets(placed.times, smooth, placed.step)
    return placed, ""


def far_off(
    offset: FloatArray, due: FloatArray, under_way: FloatArray | None, joints: Joints, cap: float
) -> str:
    """Why rows that are ``due`` now, ``offset`` ``(D,)`` from the reference, are too far, or ''.

    A reference that still catches up with the rows ``under_way`` may be further off, twice as far
    at most, if the new rows go on from those: refused, it would follow the older ones anyway.
    """
    away = np.abs(offset)
    if under_way is not None:
        away = np.where(away <= 2.0 * cap, np.minimum(away, np.abs(due - under_way)), away)
    away = np.where(joints.gripper, 0.0, away)
    worst = int(np.argmax(away))
    if away[worst] <= cap:
        return ""
    return (
        f"{joints.names[worst]} would start {abs(offset[worst]):.3f} away from the "
        f"reference, more than {cap}"
    )
