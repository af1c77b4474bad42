"""The last check before a command leaves. It passes or trips; it never edits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wam_ros.contract.data import ActionChunk, FloatArray
from wam_ros.contract.model import Limits

_SLACK = 1e-6  # rad or m, for rounding in the limiter's arithmetic


class Gate:
    """Checks on one command vector; reasons name the joint and both numbers."""

    def __init__(self, names: Sequence[str], limits: Sequence[Limits]) -> None:
        self._names = tuple(names)
        self._lower = np.array([x.lower for x in limits])
        self._upper = np.array([x.upper for x in limits])
        self._error = np.array([x.following_error for x in limits])

    def check(self, command: FloatArray, previous: FloatArray, max_step: FloatArray) -> str:
        """Return why ``command`` may not be sent, or an empty string.

        ``max_step`` ``(D,)`` bounds the change from ``previous``: a jump beyond it can only be a
        fault of ours. A joint that started outside its range may move inward only.
        """
        if not np.all(np.isfinite(command)):
            return f"command of {self._name(~np.isfinite(command))} is not a number"
        low = (command < self._lower - _SLACK) & (command < previous - _SLACK)
        high = (command > self._upper + _SLACK) & (command > previous + _SLACK)
        if (low | high).any():
            i = int(np.argmax(low | high))
            return (
                f"command {command[i]:.4f} of {self._names[i]} leaves "
                f"[{self._lower[i]:.4f}, {self._upper[i]:.4f}]"
            )
        jump = np.abs(command - previous) > max_step
        if jump.any():
            i = int(np.argmax(jump))
            step = abs(command[i] - previous[i])
            return f"command of {self._names[i]} jumps by {step:.4f} in a tick"
        return ""

    def following_error(self, reference: FloatArray, measured: FloatArray) -> tuple[float, str]:
        """Largest |reference - measured| and, when a joint is beyond its limit, why it trips."""
        error = np.abs(reference - measured)
        beyond = error > self._error
        largest = float(np.max(error, initial=0.0))
        if not beyond.any():
            return largest, ""
        i = int(np.argmax(beyond))
        return largest, (
            f"{self._names[i]} is {error[i]:.3f} away from its reference, "
            f"more than {self._error[i]:.3f}: is something in its way?"
        )

    def _name(self, where: np.ndarray) -> str:
        return self._names[int(np.argmax(where))]


def check_chunk(chunk: ActionChunk, names: Sequence[str]) -> str:
    """Return why a chunk cannot be executed by a robot driving ``names``, or an empty string."""
    missing = [n for n in names if n not in chunk.names]
    if missing:
        return f"chunk has no column for {', '.join(missing)}"
    if chunk.horizon < 2:
        return f"chunk has {chunk.horizon} row; at least 2 are needed"
    if chunk.actions.shape != (chunk.horizon, len(chunk.names)):
        return f"chunk of shape {chunk.actions.shape} does not fit {len(chunk.names)} names"
    if not (np.isfinite(chunk.step_period) and 0.001 <= chunk.step_period <= 1.0):
        return f"step period {chunk.step_period} s is outside 0.001 to 1 s"
    bad = ~np.isfinite(chunk.actions)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        return f"row {row}, {chunk.names[column]} is not a number"
    return ""
