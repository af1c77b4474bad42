"""Play back recorded actions as chunks."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from wam_ros.contract.data import ActionChunk
from wam_ros.contract.model import Contract
from wam_ros.policy.base import PolicyError, Window


class ReplayPolicy:
    """Replays an ``.npz`` with ``actions`` ``(N, D)``, ``names`` ``(D,)`` and ``step_period``.

    The recording starts when an instruction arrives and its last row is held at the end.
    """

    name = "replay"
    precision = ""
    needs_objects = False

    def __init__(self, path: str) -> None:
        if not path:
            raise PolicyError("replay needs replay_file:=FILE.npz")
        self._path = Path(path)
        self.model = self._path.name
        self._start: float | None = None

    def configure(self, contract: Contract) -> None:
        """Read the recording; raises PolicyError naming the file and what is wrong with it."""
        try:
            with np.load(self._path) as data:
                actions = np.asarray(data["actions"], dtype=np.float64)
                names = [str(n) for n in data["names"]]
                period = float(data["step_period"])
        except (OSError, ValueError, KeyError) as err:
            raise PolicyError(f"{self._path}: cannot be replayed: {err}") from err
        if actions.ndim != 2 or actions.shape[1] != len(names) or len(actions) < 2:
            raise PolicyError(
                f"{self._path}: actions {actions.shape} do not fit {len(names)} names"
            )
        if not np.all(np.isfinite(actions)):
            raise PolicyError(f"{self._path}: actions hold values that are not numbers")
        missing = [n for n in contract.control_names if n not in names]
        if missing:
            raise PolicyError(f"{self._path}: no column for {', '.join(missing)}")
        if abs(period - contract.rates.step_period) > 1e-4:
            raise PolicyError(
                f"{self._path}: step period {period:.4f} s, but the contract of {contract.robot} "
                f"says {contract.rates.step_period:.4f} s"
            )
        self._contract = contract
        kept = [n for n in contract.action_names if n in names]
        self._names = tuple(kept)
        kinds = dict(zip(contract.action_names, contract.action_kinds, strict=True))
        self._kinds = tuple(kinds[n] for n in kept)
        self._actions = actions[:, [names.index(n) for n in kept]]

    def warm_up(self) -> None:
        """Nothing to warm up."""

    def reset(self, instruction: str) -> None:
        """Start from the first row again."""
        self._start = None

    def infer(self, window: Window) -> ActionChunk:
        """The rows that are due from the newest observation on."""
        newest = window.newest
        if self._start is None:
            self._start = newest.t0
        period = self._contract.rates.step_period
        first = round((newest.t0 - self._start) / period)
        rows = np.clip(first + np.arange(self._contract.rates.horizon), 0, len(self._actions) - 1)
        return ActionChunk(
            t0=newest.t0,
            step_period=period,
            actions=self._actions[rows],
            names=self._names,
            kinds=self._kinds,
            anchor_state=newest.state.copy(),
        )

    def close(self) -> None:
        """Nothing to free."""
