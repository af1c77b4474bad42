"""What play turned out to do, in words: stretches that end at a block a hand came to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from wam_ros.contract.data import FloatArray
from wam_ros.sim.judge import NEAR
from wam_ros.sim.tasks import PlayTask, Task, TouchTask

LEAST = 0.5
"""Seconds that a stretch lasts at least; shorter ones stay part of play."""


@dataclass(frozen=True)
class Stretch:
    """From ``begin`` to ``end`` (s) the robot did ``task``."""

    begin: float
    end: float
    task: Task


def stretches(
    times: FloatArray, tips: Mapping[str, FloatArray], objects: Mapping[str, FloatArray]
) -> list[Stretch]:
    """Label play by what it did (hindsight relabelling, Andrychowicz et al. 2017).

    Parameters
    ----------
    times
        ``(T,)`` s, rising.
    tips
        Tool centre ``(T, 3)`` of each arm group, m.
    objects
        Centre ``(T, 3)`` of each block, m.

    Returns
    -------
    list of Stretch
        They cover the whole time. One that ends when a hand comes within `NEAR` of a block is that
        `TouchTask`, from the end of the stretch before; what remains is play.
    """
    arrivals = sorted(
        (float(times[i]), block, arm)
        for arm, tip in tips.items()
        for block, centre in objects.items()
        for i in _arrivals(np.linalg.norm(tip - centre, axis=1) < NEAR)
    )
    found: list[Stretch] = []
    begin = float(times[0])
    for end, block, arm in arrivals:
        if end - begin >= LEAST:
            found.append(Stretch(begin, end, TouchTask(block, arm)))
            begin = end
    if times[-1] > begin:
        found.append(Stretch(begin, float(times[-1]), PlayTask()))
    return found


def _arrivals(near: np.ndarray) -> list[int]:
    """Where a row of flags becomes true; a start that is already near is no arrival."""
    return [int(i) + 1 for i in np.flatnonzero(~near[:-1] & near[1:])]
