"""Velocity keys of the action vector: a mobile base holds at zero, not where it was."""

from __future__ import annotations

import numpy as np

from wam_ros.contract.data import ActionChunk, FloatArray
from wam_ros.contract.model import Contract


class VelocityKeys:
    """Speeds wanted by the newest chunk; zero as soon as there is no fresh target.

    Only keys enabled in the contract count. A speed is taken from the row that is due, clipped to
    the contract's range and approached at the contract's acceleration. ``timeout`` seconds after
    the last row, or when the executor does not track, the target is zero.

    Attributes
    ----------
    names
        Joints commanded by velocity, in action-vector order.
    command
        Present speeds ``(K,)``, m/s or rad/s.
    """

    def __init__(self, contract: Contract, period: float) -> None:
        keys = [k for k in contract.action if k.enabled and k.kind == "velocity"]
        self.names = tuple(n for k in keys for n in k.joints)
        limits = [contract.joints[n].limits for n in self.names]
        self._lower = np.array([max(x.lower, -x.velocity) for x in limits])
        self._upper = np.array([min(x.upper, x.velocity) for x in limits])
        self._step = np.array([x.acceleration for x in limits]) * period
        self._timeout = np.array([k.timeout for k in keys for _ in k.joints])
        self.command = np.zeros(len(self.names))
        self._rows: FloatArray | None = None
        self._start, self._row_period = 0.0, 1.0

    def take(self, chunk: ActionChunk, start: float) -> None:
        """Use ``chunk`` from now on, its first row due at path time ``start``."""
        columns = [chunk.names.index(n) for n in self.names if n in chunk.names]
        usable = self.names and len(columns) == len(self.names)
        if usable and all(chunk.kinds[c] == "velocity" for c in columns):
            self._rows = np.clip(chunk.actions[:, columns], self._lower, self._upper)
            self._start, self._row_period = start, chunk.step_period
        else:
            self._rows = None

    def stop(self) -> None:
        """Forget the chunk: the target is zero."""
        self._rows = None

    def halt(self) -> None:
        """Forget the chunk and the present speeds: nothing is commanded any more."""
        self._rows = None
        self.command = np.zeros(len(self.names))

    @property
    def at_rest(self) -> bool:
        """Whether all speeds are zero."""
        return not self.command.any()

    def advance(self, time: float | None) -> FloatArray:
        """One period further at path time ``time`` (None: not tracking); returns the speeds."""
        if not self.names:  # most robots have no base
            return self.command
        wanted = np.zeros(len(self.names))
        if self._rows is not None and time is not None:
            row = int((time - self._start) // self._row_period)
            over = time - (self._start + (len(self._rows) - 1) * self._row_period)
            due = self._rows[min(max(row, 0), len(self._rows) - 1)]
            wanted = np.where(over > self._timeout, 0.0, due)
        change = np.clip(wanted - self.command, -self._step, self._step)
        self.command = self.command + change
        return self.command
