"""What the drivers over WebSocket share: greeting, one request, checks of the answer."""

from __future__ import annotations

from typing import Any

import numpy as np

from wam_ros.contract.data import FloatArray
from wam_ros.policy.base import Window
from wam_ros.policy.remote.driver import Options, RemoteError
from wam_ros.policy.remote.link import Link
from wam_ros.serving.codec import CodecError, packb, unpackb

_SHOWN = 400


def as_rows(reply: Any, width: int) -> FloatArray:
    """Check an array of actions ``(H, width)``; ValueError says what is wrong with it."""
    if not isinstance(reply, np.ndarray):
        raise ValueError(f"the answer holds {type(reply).__name__} where actions should be")
    if reply.ndim != 2 or reply.dtype.kind not in "fiu":
        raise ValueError(f"actions of shape {reply.shape} and dtype {reply.dtype}")
    if reply.shape[1] != width or reply.shape[0] < 2:
        raise ValueError(f"actions of shape {reply.shape}; at least two rows of {width} are needed")
    actions = reply.astype(np.float64)
    if not np.all(np.isfinite(actions)):
        raise ValueError("actions hold values that are not numbers")
    return actions


class WireDriver:
    """Base of the drivers that speak msgpack over a WebSocket."""

    probe = True
    sync_only = False

    def __init__(self, options: Options) -> None:
        self.options = options
        self._link = Link(options)

    @property
    def broken(self) -> bool:
        """Whether the connection is gone."""
        return not self._link.is_open

    def open_and_greet(self) -> dict[Any, Any]:
        """Connect and return the server's first message."""
        self._link.open(self.options.timeout)
        first = self._link.receive(self.options.timeout, "waiting for its first message")
        said = self._decode(first, "its first message")
        if not isinstance(said, dict):
            raise self.broke("its first message", f"is a {type(said).__name__} instead of a map")
        return said

    def ask(self, request: Any, sent: str, timeout: float, *, text_is_error: bool = True) -> Any:
        """Send one map and return the decoded answer; error answers are raised."""
        try:
            payload = packb(request)
        except CodecError as err:
            raise self.fatal(sent, str(err)) from err
        reply = self._link.request(payload, timeout, f"{sent} ({len(payload)} bytes)")
        if isinstance(reply, str) and not text_is_error:
            return reply
        decoded = self._decode(reply, sent)
        if isinstance(decoded, dict) and decoded.get("type") == "error":
            raise self.broke(sent, f"answered: {decoded.get('message', '')}"[:_SHOWN])
        return decoded

    def _decode(self, message: bytes | str, sent: str) -> Any:
        if isinstance(message, str):
            # A traceback: its last line says what happened.
            lines = message.strip().splitlines() or ["(empty text)"]
            raise self.broke(sent, f"failed: {lines[-1][:_SHOWN]}", "the server's log has more")
        try:
            return unpackb(message, self.options.max_bytes)
        except CodecError as err:
            raise self.broke(sent, f"answered with something else: {err}") from err

    def rows(self, reply: Any, width: int, sent: str) -> FloatArray:
        """The actions ``(H, width)`` of an answer."""
        try:
            return as_rows(reply, width)
        except ValueError as err:
            raise self.broke(sent, str(err)) from err

    def broke(self, sent: str, wrong: str, advice: str = "") -> RemoteError:
        """An error after which only a new connection makes sense; closes this one."""
        self._link.drop()
        return RemoteError(self.options.server, sent, wrong, advice)

    def fatal(self, sent: str, wrong: str, advice: str = "") -> RemoteError:
        """An error that no second attempt will cure."""
        self._link.drop()
        return RemoteError(self.options.server, sent, wrong, advice, retry=False)

    def commit(self, window: Window) -> None:
        """Nothing: this protocol does not ask what was executed."""

    def close(self) -> None:
        """Close the connection."""
        self._link.close()
