"""Our own dialect: every field follows from the contract, for all robots (docs/serving.md)."""

from __future__ import annotations

from typing import Any

import numpy as np

from wam_ros.contract.data import CADENCES, FloatArray, Observation
from wam_ros.contract.model import Contract
from wam_ros.policy.base import Afterthought, Policy, Window, device_lost, frame_rows
from wam_ros.serving.codec import packb, unpackb
from wam_ros.serving.dialect import BadRequest

PROTOCOL = "wam_ros/1"
_MAX_FRAMES = 64


def describe(contract: Contract) -> dict[str, Any]:
    """The part of the first message that follows from the contract.

    ``views`` maps each camera to (height, width, 3) uint8; ``state_names`` and ``action_names``
    give the float64 columns; ``step_period`` is in seconds.
    """
    rates = contract.rates
    return {
        "protocol": PROTOCOL,
        "robot": contract.robot,
        "embodiment": contract.embodiment,
        "views": {c.name: [contract.view_height, contract.view_width, 3] for c in contract.cameras},
        "view_dtype": "|u1",
        "state_names": list(contract.state_names),
        "state_dtype": "<f8",
        "action_names": list(contract.action_names),
        "action_kinds": list(contract.action_kinds),
        "action_dtype": "<f8",
        "step_period": rates.step_period,
        "horizon": rates.horizon,
    }


def wanted_rows(policy: Policy, contract: Contract) -> list[int]:
    """Which frames a client should send: those at the training stride and at the reference's four.

    A model in the same process is shown every row; over a socket a third of them says as much.
    """
    rows, stride = frame_rows(policy), contract.rates.video_stride
    if len(rows) <= 12:
        return list(rows)
    kept = [r for r in rows if r % stride == 0 or r in (-23, -16, -8)]
    return sorted({*kept, 0})


class NativeDialect:
    """Hosts ``policy`` for any ``contract``; failed requests leave the connection open."""

    name = "native"

    def __init__(
        self, policy: Policy, contract: Contract, max_bytes: int = 64 * 1024 * 1024
    ) -> None:
        self._policy, self._contract, self._max_bytes = policy, contract, max_bytes
        self._sequence = 0
        self._asked: Any = None
        self._thought: Afterthought | None = None
        self._thought_of = 0
        self._in_session = False
        self._resetting = False

    def greeting(self) -> bytes:
        """What the contract and the model say."""
        said = describe(self._contract)
        said["model"] = self._policy.model
        said["precision"] = self._policy.precision
        size = getattr(self._policy, "view_size", None)
        said["model_view"] = list(size) if size else None
        said["needs_objects"] = bool(self._policy.needs_objects)
        said["frame_rows"] = wanted_rows(self._policy, self._contract)
        return packb(said)

    def begin(self) -> None:
        """Forget the last client."""
        self._sequence, self._in_session, self._thought = 0, False, None

    def answer(self, message: bytes | str) -> bytes:
        """``reset`` first, then ``infer`` and, for what a chunk imagined, ``imagine``."""
        self._asked, self._resetting = None, False
        if isinstance(message, str):
            raise BadRequest("a text message came; requests are binary msgpack maps")
        request = unpackb(message, self._max_bytes)
        if not isinstance(request, dict):
            raise BadRequest(f"a {type(request).__name__} came; requests are msgpack maps")
        sequence = request.get("sequence")
        if type(sequence) is not int:
            raise BadRequest("'sequence' must be a whole number")
        self._asked = sequence
        if sequence <= self._sequence:
            raise BadRequest(
                f"sequence {sequence} was answered already (the last was {self._sequence}); "
                "requests are not repeated, reset instead"
            )
        self._sequence = sequence
        endpoint = request.get("endpoint")
        if endpoint == "reset":
            return self._reset(request)
        if endpoint == "infer":
            return self._infer(request)
        if endpoint == "imagine":
            return self._imagine(request)
        raise BadRequest(f"endpoint {endpoint!r} is neither 'reset', 'infer' nor 'imagine'")

    def _reset(self, request: dict[str, Any]) -> bytes:
        instruction = request.get("instruction")
        if not isinstance(instruction, str) or not instruction.strip():
            raise BadRequest("'instruction' must be a text that is not empty")
        self._in_session, self._resetting, self._thought = False, True, None
        self._policy.reset(instruction)
        self._in_session = True
        return packb({"sequence": self._sequence, "status": "reset"})

    def _infer(self, request: dict[str, Any]) -> bytes:
        if not self._in_session:
            raise BadRequest("no session; send 'reset' with an instruction first")
        chunk = self._policy.infer(self._window(request))
        self._thought = getattr(self._policy, "imagine", lambda: None)()
        self._thought_of = self._sequence
        return packb(
            {
                "sequence": self._sequence,
                "t0": chunk.t0,
                "step_period": chunk.step_period,
                "names": list(chunk.names),
                "kinds": list(chunk.kinds),
                "actions": np.ascontiguousarray(chunk.actions, dtype=np.float64),
                "anchor_state": np.asarray(chunk.anchor_state, dtype=np.float64),
                "context_flags": int(chunk.context_flags),
                "imagined": self._thought is not None,
            }
        )

    def _imagine(self, request: dict[str, Any]) -> bytes:
        """One piece of what the last chunk imagined, so that the next call never waits for more."""
        what = request.get("what")
        if what not in ("surprise", "frame"):
            raise BadRequest(f"'what' is {what!r}, neither 'surprise' nor 'frame'")
        thought = self._thought
        if thought is None or request.get("of") != self._thought_of:
            raise BadRequest(f"nothing is imagined for request {request.get('of')!r}")
        try:
            if what == "surprise":
                return packb({"sequence": self._sequence, "surprise": float(thought.surprise())})
            seen = next(thought.frames, None)
        except Exception as err:
            if device_lost(err):
                raise
            self._thought = None  # the chunk is out; the session goes on without its pictures
            raise BadRequest(f"imagination failed: {type(err).__name__}: {err}") from err
        said: dict[str, Any] = {"sequence": self._sequence, "time": None}
        if seen is not None:
            said |= {"time": float(seen[0]), "frame": np.ascontiguousarray(seen[1])}
        return packb(said)

    def _window(self, request: dict[str, Any]) -> Window:
        cadence = request.get("cadence", "sync")
        if cadence not in CADENCES:
            raise BadRequest(f"cadence {cadence!r} is not one of {', '.join(CADENCES)}")
        times = _floats(request, "frame_times", 1)
        count = len(times)
        if not 1 <= count <= _MAX_FRAMES or np.any(np.diff(times) <= 0):
            raise BadRequest(f"'frame_times' must be 1 to {_MAX_FRAMES} growing times")
        if request.get("t0") != times[-1]:
            raise BadRequest("'t0' must be the last of 'frame_times'")
        states = _floats(request, "state", 2)
        if states.shape != (count, len(self._contract.state_names)):
            wanted = (count, len(self._contract.state_names))
            raise BadRequest(f"'state' has shape {states.shape} instead of {wanted}")
        views = self._views(request, count)
        objects = request.get("objects", {})
        if not isinstance(objects, dict):
            raise BadRequest("'objects' must be a map")
        executed = request.get("executed_rows", 0.0)
        if not isinstance(executed, (int, float)) or not np.isfinite(executed):
            raise BadRequest("'executed_rows' must be a number")
        rows = _floats(request, "rows", 1) if "rows" in request else np.zeros(0)
        if len(rows) not in (0, count):
            raise BadRequest(
                f"'rows' must be one number for each of {count} frames, or none at all"
            )
        return Window(
            frames=tuple(
                Observation(float(times[i]), {n: v[i] for n, v in views.items()}, states[i])
                for i in range(count)
            ),
            objects={str(n): _floats(objects, n, 1) for n in objects},
            executed_rows=float(executed),
            cadence=cadence,
            rows=tuple(rows.tolist()),
        )

    def _views(self, request: dict[str, Any], count: int) -> dict[str, Any]:
        views = request.get("views")
        wanted = [c.name for c in self._contract.cameras]
        if not isinstance(views, dict) or sorted(map(str, views)) != sorted(wanted):
            raise BadRequest(f"'views' must be a map of {', '.join(wanted)}")
        shape = (count, self._contract.view_height, self._contract.view_width, 3)
        for name, view in views.items():
            if getattr(view, "dtype", None) != np.uint8 or view.shape != shape:
                found = f"{getattr(view, 'dtype', '?')} {getattr(view, 'shape', '?')}"
                raise BadRequest(f"view '{name}' is {found} instead of uint8 {shape}")
        return views

    def failure(self, error: BaseException) -> tuple[bytes, bool]:
        """A map ``error`` with its kind: bad_request, instruction or model."""
        kind = "bad_request"
        message = str(error) or type(error).__name__
        # ValueError is how backends refuse an instruction, and CodecError and BadRequest are two.
        if self._resetting and isinstance(error, ValueError):
            kind = "instruction"
        elif not isinstance(error, ValueError) or (self._in_session and _from_model(error)):
            kind, self._in_session = "model", False
            message = f"{type(error).__name__}: {message}"
        return packb({"sequence": self._asked, "error": {"kind": kind, "message": message}}), False


def _from_model(error: BaseException) -> bool:
    from wam_ros.serving.codec import CodecError

    return not isinstance(error, (BadRequest, CodecError))


def _floats(request: dict[Any, Any], name: str, ndim: int) -> FloatArray:
    try:
        values = np.array(request[name], dtype=np.float64)
    except KeyError as err:
        raise BadRequest(f"'{name}' is missing") from err
    except (TypeError, ValueError) as err:
        raise BadRequest(f"'{name}' does not hold numbers") from err
    if values.ndim != ndim or not np.all(np.isfinite(values)):
        raise BadRequest(f"'{name}' must hold finite numbers in {ndim} dimension(s)")
    return values
