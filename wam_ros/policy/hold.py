"""Hold still at no cost: what remains of a call's time is the node, the messages, the socket."""

from __future__ import annotations

import numpy as np

from wam_ros.contract.data import ActionChunk
from wam_ros.contract.model import Contract
from wam_ros.policy.base import Window


class HoldPolicy:
    """Answers every call with the joints where they are and the base at rest."""

    name = "hold"
    model = "holds still"
    precision = ""
    needs_objects = False

    def configure(self, contract: Contract) -> None:
        """Note which state each action column starts from."""
        self._contract = contract
        places = {n: i for i, n in enumerate(contract.state_names)}
        self._columns = [
            (column, places[name])
            for column, (name, kind) in enumerate(zip(contract.action_names, contract.action_kinds))
            if kind == "position" and name in places
        ]

    def warm_up(self) -> None:
        """Nothing to warm up."""

    def reset(self, instruction: str) -> None:
        """Every instruction means the same here."""

    def infer(self, window: Window) -> ActionChunk:
        """A chunk of ``(horizon, D)`` equal rows."""
        newest, rates = window.newest, self._contract.rates
        row = np.zeros(len(self._contract.action_names))
        for column, place in self._columns:
            row[column] = newest.state[place]
        return ActionChunk(
            t0=newest.t0,
            step_period=rates.step_period,
            actions=np.tile(row, (rates.horizon, 1)),
            names=self._contract.action_names,
            kinds=self._contract.action_kinds,
            anchor_state=newest.state.copy(),
        )

    def close(self) -> None:
        """Nothing to free."""
