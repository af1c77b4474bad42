"""The dialect of `wam serve`: fields generated from the contract (docs/serving.md)."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

from wam_ros.contract.model import Contract
from wam_ros.policy.base import Afterthought, Window
from wam_ros.policy.remote.driver import Capabilities, Options, RemoteError, Rows
from wam_ros.policy.remote.wire import WireDriver
from wam_ros.serving.native import PROTOCOL, describe

_COMPARED = ("robot", "views", "state_names", "action_names", "action_kinds", "horizon")


class NativeDriver(WireDriver):
    """Driver for our own server; it answers with t0, cadence, sequence and names."""

    probe = False  # the server has warmed up before it lets anybody in

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._sequence = 0
        self._imagined: int | None = None
        # Pieces of imagination are asked for in another thread than chunks.
        self._turn = threading.Lock()

    def hello(self, contract: Contract) -> Capabilities:
        """Connect and compare the server's contract with ours, item by item."""
        self._contract = contract
        said = self.open_and_greet()
        if said.get("protocol") != PROTOCOL:
            raise self.fatal(
                "its first message", f"speaks {said.get('protocol', 'another protocol')!r}, "
                f"not {PROTOCOL!r}", "start it with `wam serve --dialect native`",
            )  # fmt: skip
        ours = describe(contract)
        differing = [k for k in _COMPARED if said.get(k) != ours[k]]
        if abs(float(said.get("step_period", 0.0)) - contract.rates.step_period) > 1e-4:
            differing.append("step_period")
        if differing:
            key = differing[0]
            raise self.fatal(
                "its first message", f"was started for {said.get(key)!r} as {key}, "
                f"the contract here says {ours[key]!r}", "start both with the same contract",
            )  # fmt: skip
        self._sequence = 0
        return Capabilities(
            model=str(said.get("model", "")),
            precision=str(said.get("precision", "")),
            image_size=_size(said.get("model_view")),
            horizon=contract.rates.horizon,
            step_period=contract.rates.step_period,
            needs_objects=bool(said.get("needs_objects")),
            frame_rows=tuple(int(r) for r in said.get("frame_rows", (0,))),
        )

    def reset(self, session: str, instruction: str) -> None:
        """Begin a session; ValueError when the model does not understand the instruction."""
        request = {"endpoint": "reset", "session": session, "instruction": instruction}
        with self._turn:
            self._imagined = None
            self._checked(request, "reset", self.options.timeout)

    def infer(self, window: Window, instruction: str, deadline: float) -> Rows:
        """Send frames with their times, states, cadence and what was executed."""
        frames = window.frames
        request: dict[str, Any] = {
            "endpoint": "infer",
            "t0": window.newest.t0,
            "cadence": window.cadence,
            "frame_times": np.array([f.t0 for f in frames]),
            "state": np.stack([f.state for f in frames]),
            "views": {n: np.stack([f.views[n] for f in frames]) for n in window.newest.views},
            "executed_rows": float(window.executed_rows),
            "rows": np.array(window.rows),
            "objects": dict(window.objects),
        }
        sent = f"infer with {len(frames)} frames"
        with self._turn:
            self._imagined = None
            reply = self._checked(request, sent, deadline)
            self._imagined = self._sequence if reply.get("imagined") is True else None
        names = tuple(map(str, reply.get("names", ())))
        kinds = dict(zip(self._contract.action_names, self._contract.action_kinds))
        unknown = [n for n in names if n not in kinds]
        if unknown or not names:
            raise self.broke(sent, f"actions for {', '.join(unknown) or 'nothing'} came")
        if reply.get("t0") != window.newest.t0:
            raise self.broke(sent, "answered for another observation")
        actions = self.rows(reply.get("actions"), len(names), sent)
        flags = int(reply.get("context_flags", 0))
        return Rows(actions, names, tuple(kinds[n] for n in names), flags)

    def imagine(self) -> Afterthought | None:
        """What the server's model imagined with the last chunk, asked for piece by piece."""
        of = self._imagined
        return None if of is None else Afterthought(lambda: self._surprise(of), self._frames(of))

    def _surprise(self, of: int) -> float:
        piece = self._piece(of, "surprise")
        return float(piece.get("surprise", math.nan))

    def _frames(self, of: int) -> Iterator[tuple[float, Any]]:
        while True:
            piece = self._piece(of, "frame")
            time, frame = piece.get("time"), piece.get("frame")
            if not isinstance(time, float) or not _is_picture(frame):
                return
            yield time, frame

    def _piece(self, of: int, what: str) -> dict[str, Any]:
        """A piece; empty once a newer request has been made, or where the server has none."""
        with self._turn:
            if of != self._imagined or self.broken:
                return {}
            request = {"endpoint": "imagine", "of": of, "what": what}
            try:
                return self._checked(request, f"imagine {what}", self.options.timeout, spare=True)
            except RemoteError:
                return {}

    def _checked(
        self, request: dict[str, Any], sent: str, deadline: float, *, spare: bool = False
    ) -> dict[str, Any]:
        """Number and send a request. Without ``spare`` an error answer ends the connection."""
        self._sequence += 1
        request["sequence"] = self._sequence
        reply = self.ask(request, sent, deadline)
        if not isinstance(reply, dict):
            raise self.broke(sent, f"answered {type(reply).__name__} instead of a map")
        error = reply.get("error")
        if isinstance(error, dict) and spare:
            return {}
        if isinstance(error, dict):
            message = str(error.get("message", ""))
            if error.get("kind") == "instruction":
                raise ValueError(message)
            raise self.broke(sent, f"answered: {message}")
        if reply.get("sequence") != request["sequence"]:
            raise self.broke(sent, f"answered request {reply.get('sequence')!r}")
        return reply


def _is_picture(frame: Any) -> bool:
    return isinstance(frame, np.ndarray) and frame.dtype == np.uint8 and frame.ndim == 3


def _size(said: Any) -> tuple[int, int] | None:
    """(height, width), or None where the server says nothing that can be one."""
    if isinstance(said, list) and len(said) == 2 and all(type(n) is int and n > 0 for n in said):
        return said[0], said[1]
    return None
