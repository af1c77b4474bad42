"""openpi's protocol, for pi0 and pi0.5 on DROID.

The answer is a map with ``actions``. The DROID checkpoints give joint *velocities* in DROID's own
unit, -1..1 per 15 Hz step; they are added up into positions here, starting from the state that was
sent. Stateless: there is no reset and no session.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from wam_ros.contract.data import FloatArray
from wam_ros.contract.model import Contract
from wam_ros.policy.base import Window
from wam_ros.policy.remote import fields
from wam_ros.policy.remote.driver import Capabilities, Options, Rows
from wam_ros.policy.remote.wire import WireDriver

STEP = 0.2
"""Joint travel (rad) of a step at velocity 1 (DROID robot_ik_solver, relative_max_joint_delta)."""
SIDE = 224
"""Pixels of the square pictures that openpi's models take."""


def integrate(velocity: FloatArray, start: FloatArray) -> FloatArray:
    """Joint positions ``(H, J)`` in rad from DROID velocities ``(H, J)`` and ``start`` ``(J,)``.

    Each row is clipped to -1..1 as openpi's DROID client does; row ``i`` is where the joints are
    told to go at that step: ``start + 0.2 * sum(velocity[: i + 1])``.
    """
    return start + STEP * np.cumsum(np.clip(velocity, -1.0, 1.0), axis=0)


class OpenPiDriver(WireDriver):
    """Driver for DROID robots."""

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._velocity = options.actions != "position"

    def hello(self, contract: Contract) -> Capabilities:
        """Connect; the first message is free-form metadata."""
        fields.droid_check(contract, "openpi")
        if abs(contract.rates.action - 15.0) > 1e-6:
            raise self.fatal(
                "", f"openpi's DROID policies act at 15 Hz, {contract.robot} "
                f"at {contract.rates.action:g} Hz", "set rates.action to 15 in the contract",
            )  # fmt: skip
        self._contract = contract
        said = self.open_and_greet()
        if self.options.actions == "auto" and "action_space" in said:
            self._velocity = said["action_space"] == "joint_velocity"
        names = fields.droid_cameras(contract, zero_based=False)
        wanted = ("observation/exterior_image_1_left", "observation/wrist_image_left")
        self._cameras = {c: n for c, n in names.items() if n in wanted}
        missing = [w for w in wanted if w not in self._cameras.values()]
        if missing:
            raise self.fatal("", f"wants {', '.join(missing)}; {contract.robot} has no such camera")
        return Capabilities(model=str(said.get("model", "")))

    def reset(self, session: str, instruction: str) -> None:
        """Nothing to forget: every request stands alone."""

    def infer(self, window: Window, instruction: str, deadline: float) -> Rows:
        """The newest frame only."""
        newest = window.newest
        request: dict[str, Any] = {}
        for camera in self._contract.cameras:
            if camera.name in self._cameras:
                view = newest.views[camera.name]
                aspect = camera.width / camera.height
                request[self._cameras[camera.name]] = fields.letterbox(view, aspect, SIDE)
        for key in fields.DROID_STATE:
            request[f"observation/{key}"] = fields.state_key(self._contract, key, newest.state)
        request["prompt"] = instruction
        reply = self.ask(request, "infer", deadline)
        if not isinstance(reply, dict) or "actions" not in reply:
            raise self.broke("infer", "the answer has no 'actions'", "is this an openpi server?")
        names, kinds = fields.droid_columns(self._contract)
        actions = self.rows(reply["actions"], len(names), "infer")
        if self._velocity:
            joints = request["observation/joint_position"]
            actions[:, : len(joints)] = integrate(actions[:, : len(joints)], joints)
        return Rows(actions, names, kinds)
