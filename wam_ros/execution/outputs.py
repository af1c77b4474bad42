"""From the control vector to what each driver topic wants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wam_ros.contract.data import FloatArray
from wam_ros.contract.model import Contract, Output


@dataclass
class Channel:
    """One command topic: its columns of the control vector and when it is due."""

    output: Output
    columns: list[int]
    every: int

    def due(self, tick: int) -> bool:
        """Whether this topic is sent on control cycle number ``tick``."""
        return tick % self.every == 0

    def raw(self, command: FloatArray, measured: FloatArray) -> FloatArray:
        """Values in the driver's unit.

        Where the driver bounds the distance from the measured position, the value is held back
        to just inside that bound: a robot that lags is waited for, never jerked.
        """
        value = command[self.columns]
        if self.output.max_step is not None:
            seen = measured[self.columns]
            reach = 0.95 * self.output.max_step
            value = np.where(np.isfinite(seen), np.clip(value, seen - reach, seen + reach), value)
        return np.asarray(self.output.scale * value + self.output.offset)


def channels(contract: Contract, names: Sequence[str], sim: bool) -> list[Channel]:
    """Channels to drive; outputs with ``status: unknown`` exist in simulation only."""
    index = {n: i for i, n in enumerate(names)}
    result = []
    for output in contract.outputs:
        usable = output.enabled and (sim or output.status != "unknown")
        if usable and all(j in index for j in output.joints):
            every = max(1, round(contract.rates.control / output.rate))
            result.append(Channel(output, [index[j] for j in output.joints], every))
    return result
