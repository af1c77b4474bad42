"""Run the executor over a list of chunk arrivals, without a clock of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from wam_ros.contract.data import ActionChunk, FloatArray
from wam_ros.execution.executor import Executor, Mode

Arrival = tuple[float, ActionChunk]
Robot = Callable[[float, FloatArray], FloatArray]


@dataclass(frozen=True)
class Run:
    """What was sent: ``commands`` ``(N, D)`` at ``times`` ``(N,)``, and what was refused."""

    times: FloatArray
    commands: FloatArray
    modes: list[Mode]
    refusals: list[str]


def follow_exactly(_: float, reference: FloatArray) -> FloatArray:
    """A robot that is always where it was told to be."""
    return reference


def execute(
    core: Executor,
    arrivals: Sequence[Arrival],
    clock: Iterable[float],
    robot: Robot = follow_exactly,
) -> Run:
    """Drive ``core`` through the ticks of ``clock``.

    Parameters
    ----------
    core
        An executor, armed or not.
    arrivals
        Chunks with the time (s) each arrives; need not be sorted.
    clock
        Times of the ticks, s, in the chunks' time base.
    robot
        ``robot(t, reference) -> measured``, called before every tick.
    """
    waiting = sorted(arrivals, key=lambda x: x[0])
    times, commands, modes, refusals = [], [], [], []
    following = 0
    for t in clock:
        measured = robot(t, core.reference)
        core.set_measured(dict(zip(core.names, map(float, measured), strict=True)), t)
        while following < len(waiting) and waiting[following][0] <= t:
            refusals.append(core.submit(waiting[following][1], t))
            following += 1
        command = core.tick(t)
        if command is not None:
            times.append(t)
            commands.append(command.copy())
            modes.append(core.mode)
    shape = (len(commands), len(core.names))
    return Run(np.array(times), np.array(commands).reshape(shape), modes, refusals)
