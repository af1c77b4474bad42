"""RoboArena's dialect, as DreamZero's server for DROID speaks it.

Its evaluators send one or more frames per camera and take back one bare float32 array ``(H, 8)``.
A failed request is answered by a text frame with the traceback and close code 1011.
"""

from __future__ import annotations

import time
import traceback
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wam_ros.contract.data import ActionChunk, FloatArray, Observation
from wam_ros.contract.model import Contract
from wam_ros.policy.base import Policy, Window
from wam_ros.policy.remote.fields import DROID_STATE, droid_cameras, droid_check, droid_columns
from wam_ros.serving.codec import packb, unpackb
from wam_ros.serving.config import DROID_14B, ServerConfig
from wam_ros.serving.dialect import BadRequest
from wam_ros.serving.frames import CameraQueues

RESET_REPLY = "reset successful"
FRAME_ROWS = (-23, -16, -8, 0)
"""When DreamZero's client takes four frames; the protocol carries no times, so it is assumed."""


def announced(policy: Policy) -> ServerConfig:
    """DROID's configuration with the view size that the model takes, where it says one."""
    size = getattr(policy, "view_size", None)
    return DROID_14B if size is None else replace(DROID_14B, image_resolution=size)


class RoboArenaDialect:
    """Hosts ``policy`` for a DROID ``contract``.

    Parameters
    ----------
    config
        What is announced; frames of another size than its ``image_resolution`` are refused.

    Raises
    ------
    PolicyError
        The contract is not DROID's.
    """

    name = "roboarena"

    def __init__(
        self,
        policy: Policy,
        contract: Contract,
        config: ServerConfig = DROID_14B,
        max_bytes: int = 64 * 1024 * 1024,
    ) -> None:
        droid_check(contract, "the RoboArena dialect")
        self._policy, self._contract, self._config = policy, contract, config
        self._max_bytes = max_bytes
        self._cameras = droid_cameras(contract, zero_based=True)
        self._columns, _ = droid_columns(contract)
        self._queues = CameraQueues(tuple(self._cameras))
        self._prompt: str | None = None

    def greeting(self) -> bytes:
        """Resolution, cameras and action space."""
        return packb(self._config.to_wire())

    def begin(self) -> None:
        """Start with empty queues; the model is reset by the first request."""
        self._queues = CameraQueues(tuple(self._cameras))
        self._prompt = None

    def answer(self, message: bytes | str) -> bytes | str:
        """``endpoint: reset`` resets; anything else infers; without the key it is an error."""
        if isinstance(message, str):
            raise BadRequest("a text message came; requests are binary msgpack maps")
        request = unpackb(message, self._max_bytes)
        if not isinstance(request, dict):
            raise BadRequest(f"a {type(request).__name__} came; requests are msgpack maps")
        if "endpoint" not in request:
            raise BadRequest("the key 'endpoint' is missing; send 'infer' or 'reset'")
        if request["endpoint"] == "reset":
            self._queues.reset()
            self._prompt = None
            return RESET_REPLY
        chunk = self._infer(request)
        places = [chunk.names.index(n) for n in self._columns]
        return packb(np.ascontiguousarray(chunk.actions[:, places], dtype=np.float32))

    def _infer(self, request: dict[str, Any]) -> ActionChunk:
        frames = {c: self._frames(request, name) for c, name in self._cameras.items()}
        state = self._state(request)
        prompt = str(request.get("prompt", ""))
        session = request.get("session_id")
        if self._queues.enter(None if session is None else str(session)):
            self._prompt = None
        for camera, views in frames.items():
            if views is not None:
                self._queues.push(camera, views)
        if prompt != self._prompt:
            self._policy.reset(prompt)
            self._prompt = prompt
        return self._policy.infer(self._window(self._queues.take(), state))

    def _frames(self, request: dict[str, Any], name: str) -> NDArray[np.uint8] | None:
        views = request.get(name)
        if views is None:
            return None
        shape: tuple[int, ...] = getattr(views, "shape", ())
        if getattr(views, "dtype", None) != np.uint8 or len(shape) not in (3, 4) or shape[-1] != 3:
            raise BadRequest(f"'{name}' must be uint8 (H, W, 3) or (T, H, W, 3)")
        size = self._config.image_resolution
        if size is not None and shape[-3:-1] != size:
            raise BadRequest(f"'{name}' has {shape[-3:-1]} pixels; this server takes {size}")
        if len(shape) == 4 and not 1 <= shape[0] <= 64:
            raise BadRequest(f"'{name}' has {shape[0]} frames; send 1 to 64")
        return np.asarray(views)

    def _state(self, request: dict[str, Any]) -> FloatArray:
        state = np.zeros(len(self._contract.state_names))
        for key in self._contract.state:
            if key.key not in DROID_STATE:
                continue
            name = f"observation/{key.key}"
            given = request.get(name)
            if given is None:
                continue
            try:
                values = np.asarray(given, dtype=np.float64).reshape(-1)
            except (TypeError, ValueError) as err:
                raise BadRequest(f"'{name}' does not hold numbers") from err
            if len(values) != len(key.joints) or not np.all(np.isfinite(values)):
                raise BadRequest(f"'{name}' must hold {len(key.joints)} finite numbers")
            state[key.start : key.stop] = values
        return state

    def _window(self, views: dict[str, NDArray[np.uint8]], state: FloatArray) -> Window:
        """Only the newest frame's time is known: the protocol carries none."""
        rates = self._contract.rates
        now = time.time()
        count = len(next(iter(views.values())))
        frames = tuple(
            Observation(
                t0=now + FRAME_ROWS[i - count] * rates.step_period,
                views={camera: frames[i] for camera, frames in views.items()},
                state=state,
            )
            for i in range(count)
        )
        return Window(frames, executed_rows=float(rates.horizon if count > 1 else 0))

    def failure(self, error: BaseException) -> tuple[str, bool]:
        """The traceback as text; the connection ends, as clients of this protocol expect."""
        self._prompt = None
        return "".join(traceback.format_exception(error)), True
