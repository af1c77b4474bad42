"""Collects the trace of an episode."""

from __future__ import annotations

import numpy as np

from wam_ros.contract.data import FloatArray
from wam_ros.execution import Mode
from wam_ros.rollout.body import Body
from wam_ros.rollout.episode import ChunkRecord, Trace


class Log:
    """Samples a body; what it keeps are the arrays themselves, joined at the end."""

    def __init__(self, body: Body) -> None:
        self._body = body
        self._arms = [g.name for g in body.contract.groups if g.role == "arm" and g.tip_link]
        self._rows: list[tuple[float, int, FloatArray, FloatArray, list[float]]] = []
        self._tips: dict[str, list[FloatArray]] = {a: [] for a in self._arms}
        self._objects: dict[str, list[FloatArray]] = {n: [] for n in body.plant.objects()}
        self.chunks: list[ChunkRecord] = []

    def add(self, now: float) -> None:
        """Take a sample."""
        core, plant = self._body.core, self._body.plant
        measured = plant.positions()
        self._rows.append(
            (
                now,
                int(core.mode),
                core.reference.copy(),
                core.state[2].copy(),
                [measured[n] for n in core.names],
            )
        )
        for arm, series in self._tips.items():
            series.append(plant.tip(arm))
        for name, centre in plant.objects().items():
            self._objects[name].append(centre)

    def trace(self) -> Trace:
        """Everything so far."""
        t, mode, reference, acceleration, measured = zip(*self._rows, strict=True)
        return Trace(
            names=self._body.core.names,
            t=np.array(t),
            reference=np.array(reference),
            measured=np.array(measured),
            acceleration=np.array(acceleration),
            tips={n: np.array(s) for n, s in self._tips.items()},
            objects={n: np.array(s) for n, s in self._objects.items()},
            mode=np.array(mode, dtype=np.float64),
        )

    @staticmethod
    def holds(trace: Trace, first: float) -> tuple[int, float]:
        """How often, and how long, the executor did not follow a chunk since ``first`` (s)."""
        later = trace.t >= first
        moving = trace.mode[later] == int(Mode.TRACKING)
        if len(moving) < 2:
            return 0, 0.0
        count = int(np.sum(moving[:-1] & ~moving[1:]))
        step = float(np.median(np.diff(trace.t)))
        return count, float(np.sum(~moving) * step)
