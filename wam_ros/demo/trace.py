"""What a demo saw while it ran."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass
class Trace:
    """What was seen while running."""

    times: list[float] = field(default_factory=list)
    reference: list[np.ndarray] = field(default_factory=list)
    measured: list[np.ndarray] = field(default_factory=list)
    names: tuple[str, ...] = ()
    ticks: list[tuple[float, int]] = field(default_factory=list)
    frames: list[tuple[float, Mapping[str, np.ndarray]]] = field(default_factory=list)

    def record(self, client: Any, t: float) -> None:
        """Take the newest states of ``client`` at ``t`` seconds after the instruction."""
        from wam_ros.nodes.convert import observation_from_msg

        state, observation = client.executor, client.observation
        if self.times and t - self.times[-1] < 0.03:
            return
        seen = dict(zip(observation.state_names, observation.state))
        self.names = tuple(state.joint_names)
        stamp = state.header.stamp
        self.ticks.append((stamp.sec + stamp.nanosec * 1e-9, int(state.ticks)))
        self.times.append(t)
        self.reference.append(np.array(state.reference))
        self.measured.append(np.array([seen.get(n, np.nan) for n in self.names]))
        if not self.frames or t - self.frames[-1][0] > 0.25:
            self.frames.append((t, observation_from_msg(observation).views))

    @property
    def tick_rate(self) -> float:
        """Control cycles per second between the first and the last executor state seen."""
        (t0, n0), (t1, n1) = self.ticks[0], self.ticks[-1]
        return (n1 - n0) / (t1 - t0) if t1 > t0 else 0.0
