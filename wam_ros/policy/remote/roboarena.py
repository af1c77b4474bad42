"""RoboArena's dialect: DreamZero's own server, and vLLM-Omni's endpoint that speaks the same.

Every request carries ``endpoint``; the answer to ``infer`` is one bare array ``(N, 8)`` of joint
positions (rad) and gripper. The servers differ in how they answer a reset (the text ``reset
successful`` or a map with ``status``) and in how they fail (a text with a traceback and close code
1011, or a map of ``type: error`` on a socket that stays open). vLLM-Omni closes after 30 s idle.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from wam_ros.contract.model import Contract
from wam_ros.policy.base import Window
from wam_ros.policy.remote import fields
from wam_ros.policy.remote.driver import Capabilities, Options, Rows
from wam_ros.policy.remote.wire import WireDriver
from wam_ros.serving.config import ServerConfig
from wam_ros.serving.roboarena import FRAME_ROWS


class RoboArenaDriver(WireDriver):
    """Driver for DROID robots."""

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._config = ServerConfig()
        self._session = ""
        self._fresh = True
        self._sent_until = float("-inf")

    def hello(self, contract: Contract) -> Capabilities:
        """Connect; the first message says which views are wanted and what actions come back."""
        fields.droid_check(contract, "roboarena")
        self._contract = contract
        said = self.open_and_greet()
        if not ServerConfig.matches(said):
            raise self.fatal(
                "its first message", f"has the keys {sorted(map(str, said))}",
                "this is no RoboArena server; try policy:=openpi or policy:=lingbot_va",
            )  # fmt: skip
        try:
            self._config = ServerConfig.from_wire(said)
        except (TypeError, ValueError) as err:
            raise self.fatal("its first message", str(err)) from err
        if self._config.action_space != "joint_position":
            raise self.fatal(
                "its first message", f"action space {self._config.action_space}",
                "only joint_position can be carried out; serve a joint position checkpoint",
            )  # fmt: skip
        self._cameras = self._wanted(contract)
        return Capabilities(image_size=self._config.image_resolution, frame_rows=FRAME_ROWS)

    def _wanted(self, contract: Contract) -> dict[str, str]:
        config = self._config
        have = fields.droid_cameras(contract, zero_based=True)
        needed = [f"observation/exterior_image_{i}_left" for i in range(config.n_external_cameras)]
        if config.needs_wrist_camera:
            needed.append("observation/wrist_image_left")
        missing = [n for n in needed if n not in have.values()]
        if missing or config.needs_stereo_camera:
            lacking = ", ".join(missing) or "the right images of stereo cameras"
            raise self.fatal("", f"wants {lacking}, which {contract.robot} does not have")
        return {camera: name for camera, name in have.items() if name in needed}

    def reset(self, session: str, instruction: str) -> None:
        """End the session there is; the next request begins ``session``."""
        self._session, self._fresh = session, True
        reply = self.ask({"endpoint": "reset"}, "reset", self.options.timeout, text_is_error=False)
        status = reply.get("status") if isinstance(reply, dict) else reply
        if status != "reset successful":
            raise self.broke("reset", f"answered {status!r} instead of 'reset successful'")

    def infer(self, window: Window, instruction: str, deadline: float) -> Rows:
        """One frame at the start of a session, then those since the last call."""
        frames = window.frames[-1:]
        if not self._fresh:
            # The server keeps what it was sent; a frame must not come to it twice.
            frames = tuple(f for f in window.frames[:-1] if f.t0 > self._sent_until + 1e-3) + frames
        request: dict[str, Any] = {}
        for camera, name in self._cameras.items():
            views = [fields.resize(f.views[camera], self._config.image_resolution) for f in frames]
            request[name] = np.stack(views) if len(views) > 1 else views[0]
        state = window.newest.state
        for key in fields.DROID_STATE:
            request[f"observation/{key}"] = fields.state_key(self._contract, key, state)
        request |= {"prompt": instruction, "session_id": self._session, "endpoint": "infer"}
        sent = f"infer with {len(frames)} frame{'s' if len(frames) > 1 else ''}"
        reply = self.ask(request, sent, deadline)
        if isinstance(reply, dict):
            reply = reply.get("actions")
        names, kinds = fields.droid_columns(self._contract)
        actions = self.rows(reply, len(names), sent)
        self._fresh, self._sent_until = False, window.newest.t0
        return Rows(actions, names, kinds)
