"""LingBot-VA's protocol: the client has to say what was executed and what was seen meanwhile.

Three kinds of request: ``reset`` with the prompt; one observation, answered by ``action`` of shape
(channels, frames F, steps N); and, after execution, ``compute_kv_cache`` with key frames and the
executed actions. In the first answer of a session frame 0 is the past and is not executed. Four
key frames belong to each action frame (evaluation clients of LingBot-VA).

Only checkpoints whose channels are absolute joint targets fit; the released RoboTwin and LIBERO
ones give poses of the hand.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from wam_ros.contract.data import Observation
from wam_ros.contract.model import Contract
from wam_ros.policy.base import Window
from wam_ros.policy.remote.driver import Capabilities, Options, Rows
from wam_ros.policy.remote.wire import WireDriver

KEY_FRAMES = 4
"""Key frames per action frame."""
_SLOTS = {
    "top_left": "cam_high",
    "bottom_left": "cam_left_wrist",
    "top_right": "cam_right_wrist",
}


class LingBotVaDriver(WireDriver):
    """Driver for any robot whose action columns a checkpoint gives."""

    sync_only = True

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._last: np.ndarray | None = None
        self._t0 = 0.0
        self._first = True

    def hello(self, contract: Contract) -> Capabilities:
        """Connect; nothing useful is said by the server."""
        self._contract = contract
        self._channels = self.options.channels or tuple(range(len(contract.action_names)))
        if len(self._channels) != len(contract.action_names):
            raise self.fatal(
                "", f"server_channels names {len(self._channels)} channels for the "
                f"{len(contract.action_names)} actions of {contract.robot}",
                "give one channel per action, in the contract's order",
            )  # fmt: skip
        self._cameras = {}
        for camera in contract.cameras:
            name = self.options.names.get(camera.name) or _SLOTS.get(camera.slot, camera.name)
            self._cameras[camera.name] = f"observation.images.{name.split('.')[-1]}"
        self.open_and_greet()
        return Capabilities(frame_rows=tuple(range(-60, 1, 2)))

    def reset(self, session: str, instruction: str) -> None:
        """Forget everything; the prompt is encoded here."""
        self._last, self._first = None, True
        self._empty_reply({"reset": True, "prompt": instruction}, "reset")

    def _look(self, observation: Observation) -> dict[str, Any]:
        look: dict[str, Any] = {n: observation.views[c] for c, n in self._cameras.items()}
        look["observation.state"] = observation.state
        return look

    def infer(self, window: Window, instruction: str, deadline: float) -> Rows:
        """Ask for a chunk of ``F * N`` rows (``(F - 1) * N`` at first)."""
        request = {"obs": self._look(window.newest), "prompt": instruction}
        reply = self.ask(request, "infer", deadline)
        action = reply.get("action") if isinstance(reply, dict) else None
        if not isinstance(action, np.ndarray) or action.ndim != 3:
            shape = getattr(action, "shape", type(action).__name__)
            raise self.broke(
                "infer", f"'action' is {shape} instead of an array (channels, frames, steps)"
            )
        if max(self._channels) >= action.shape[0]:
            raise self.broke(
                "infer", f"{action.shape[0]} channels came, but {max(self._channels) + 1} are used",
                "set server_channels:= to the channels of the contract's actions",
            )  # fmt: skip
        start = 1 if self._first else 0
        flat = action[list(self._channels), start:].reshape(len(self._channels), -1).T
        rows = self.rows(np.ascontiguousarray(flat), len(self._channels), "infer")
        self._last, self._t0 = action, window.newest.t0
        return Rows(rows, self._contract.action_names, self._contract.action_kinds)

    def commit(self, window: Window) -> None:
        """Report whole action frames that were executed, with the frames seen at their key times.

        A rest that is not a whole frame is left out: the server's memory counts whole ones.
        """
        action = self._last
        if action is None:
            return
        start = 1 if self._first else 0
        steps = action.shape[2]
        done = min(int(window.executed_rows + 1e-6) // steps, action.shape[1] - start)
        if done < 1 and not self._first:
            raise self.broke("commit", f"fewer than {steps} rows were executed", "starting over")
        period = self._contract.rates.step_period
        # Rows of a chunk begin when it arrives; the newest frame is the end of what was executed.
        begin = window.newest.t0 - window.executed_rows * period
        stride = max(steps // KEY_FRAMES, 1)
        keys = []
        for row in range(stride, done * steps + 1, stride):
            due = begin + row * period
            seen = min(window.frames, key=lambda o: abs(o.t0 - due))
            keys.append(self._look(seen))
        request = {
            "obs": keys,
            "compute_kv_cache": True,
            "imagine": False,
            "state": action[:, : start + done],
        }
        self._last, self._first = None, False
        self._empty_reply(request, f"commit of {done} frames")

    def _empty_reply(self, request: dict[str, Any], sent: str) -> None:
        reply = self.ask(request, sent, self.options.timeout)
        if not isinstance(reply, dict):
            raise self.broke(sent, f"answered {type(reply).__name__} instead of a map")
