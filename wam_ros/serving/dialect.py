"""What the server needs of a dialect, and the ways a request can be wrong."""

from __future__ import annotations

from typing import Protocol


class BadRequest(ValueError):
    """A request the protocol does not allow; the message says which part."""


class Dialect(Protocol):
    """Bytes in, bytes out, for one session at a time; every call runs in the model's thread."""

    name: str

    def greeting(self) -> bytes:
        """The first message of a connection."""

    def begin(self) -> None:
        """A client connected: whatever was seen before belongs to somebody else."""

    def answer(self, message: bytes | str) -> bytes | str:
        """Carry out one request; raises what `failure` turns into an answer."""

    def failure(self, error: BaseException) -> tuple[bytes | str, bool]:
        """The answer to a request that failed, and whether the connection ends with it."""
