"""A WebSocket whose every operation ends by a deadline.

The socket lives in an event loop in a thread of its own, so that keep-alive pings are answered
between calls, and a deadline covers connecting, sending, fragments that trickle in, and waiting.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
import uuid
from collections.abc import Coroutine
from typing import Any, TypeVar
from urllib.parse import urlsplit

from wam_ros.policy.base import PolicyError
from wam_ros.policy.remote.driver import Options, RemoteError
from wam_ros.serving.server import CLIENT_HEADER

T = TypeVar("T")
# DreamZero's server answers no ping while it infers, so its own client waits this long for one.
_PING_INTERVAL, _PING_TIMEOUT = 60.0, 600.0


def _library() -> Any:
    try:
        import websockets
        from websockets.asyncio.client import connect
    except ImportError as err:
        raise PolicyError(
            "the library websockets (15 or newer) is missing; type: pip install 'websockets>=15'"
        ) from err
    return websockets, connect


class Link:
    """One connection to ``options.server``; not thread-safe.

    Raises
    ------
    PolicyError
        The address is not ``ws://`` or ``wss://``, or the library is missing.
    """

    def __init__(self, options: Options) -> None:
        parts = urlsplit(options.server)
        if parts.scheme not in ("ws", "wss") or not parts.hostname:
            raise PolicyError(
                f"server:={options.server} is no address of a websocket; "
                "write ws://HOST:PORT, or wss://HOST:PORT for TLS"
            )
        self._exceptions, self._connect = _library()
        self._o = options
        self._tls: ssl.SSLContext | None = None
        if parts.scheme == "wss":
            try:
                self._tls = ssl.create_default_context(cafile=options.ca_file or None)
            except OSError as err:
                raise PolicyError(f"server_ca:={options.ca_file} cannot be used: {err}") from err
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name="link")
        self._thread.start()
        self._socket: Any = None
        self._client = uuid.uuid4().hex

    @property
    def is_open(self) -> bool:
        """Whether the connection stands; False as soon as the server closed it."""
        return self._socket is not None and self._socket.state.name == "OPEN"

    def open(self, timeout: float) -> None:
        """Connect anew; ``timeout`` in seconds."""
        self.drop()
        headers = {CLIENT_HEADER: self._client}
        if self._o.token:
            headers["Authorization"] = f"Api-Key {self._o.token}"

        async def connect() -> Any:
            return await self._connect(
                self._o.server,
                ssl=self._tls,
                compression=None,
                max_size=self._o.max_bytes,
                additional_headers=headers,
                open_timeout=timeout,
                close_timeout=1.0,
                ping_interval=_PING_INTERVAL,
                ping_timeout=_PING_TIMEOUT,
                proxy=None,
            )

        self._socket = self._run(connect(), timeout, "connecting")

    def receive(self, timeout: float, sent: str) -> bytes | str:
        """The next message; ``sent`` says in errors what it answers."""
        return self._run(self._socket.recv(), timeout, sent)

    def request(self, payload: bytes, timeout: float, sent: str) -> bytes | str:
        """Send one message and wait for the answer."""
        if not self.is_open:
            raise RemoteError(self._o.server, sent, "not sent, the connection is closed", "reset")

        async def exchange() -> Any:
            await self._socket.send(payload)
            return await self._socket.recv()

        return self._run(exchange(), timeout, sent)

    def _run(self, what: Coroutine[Any, Any, T], timeout: float, sent: str) -> T:
        async def bounded() -> T:
            return await asyncio.wait_for(what, timeout)

        future = asyncio.run_coroutine_threadsafe(bounded(), self._loop)
        try:
            return future.result()
        except Exception as err:
            self.drop()
            raise self._explain(err, timeout, sent) from err

    def _explain(self, err: Exception, timeout: float, sent: str) -> RemoteError:
        server, errors = self._o.server, self._exceptions
        # TimeoutError is an OSError, so it has to be told apart first.
        if isinstance(err, (TimeoutError, asyncio.TimeoutError)):
            return RemoteError(
                server, sent, f"no answer within {timeout:g} s",
                "is the server busy or the network cut? server_timeout:= sets the limit",
            )  # fmt: skip
        if isinstance(err, errors.exceptions.InvalidStatus):
            body = bytes(err.response.body or b"").decode("utf-8", "replace").strip()
            code = err.response.status_code
            fatal = code in (401, 403)
            advice = "give the token's file with server_token_file:=" if fatal else ""
            wrong = f"refused with HTTP {code}" + (f" ({body})" if body else "")
            return RemoteError(server, sent, wrong, advice, retry=not fatal)
        if isinstance(err, ssl.SSLCertVerificationError):
            return RemoteError(
                server, sent, f"its certificate is not trusted: {err.verify_message}",
                "name the authority's file with server_ca:=", retry=False,
            )  # fmt: skip
        if isinstance(err, errors.exceptions.ConnectionClosed):
            got = err.rcvd
            if got is None and err.sent is not None and err.sent.code == 1009:
                limit = f"{self._o.max_bytes} bytes"
                return RemoteError(server, sent, f"the answer was longer than {limit}")
            why = f" ({got.code} {got.reason})".replace(" )", ")") if got else " without a word"
            hint = "the message was too long for it" if got and got.code == 1009 else ""
            return RemoteError(server, sent, f"the server closed the connection{why}", hint)
        if isinstance(err, (OSError, errors.exceptions.WebSocketException, EOFError)):
            return RemoteError(server, sent, f"{type(err).__name__}: {err}", "is it running there?")
        return RemoteError(server, sent, f"{type(err).__name__}: {err}")

    def drop(self) -> None:
        """Cut the connection without ceremony: a stuck server must not hold us up."""
        socket, self._socket = self._socket, None
        if socket is not None:
            self._loop.call_soon_threadsafe(socket.transport.abort)

    def close(self) -> None:
        """Say goodbye, for a second at most, and end the thread."""
        if self.is_open:
            socket = self._socket
            future = asyncio.run_coroutine_threadsafe(socket.close(), self._loop)
            with contextlib.suppress(Exception):  # whatever happens now, it is over
                future.result(1.5)
        self.drop()
        with contextlib.suppress(Exception):
            asyncio.run_coroutine_threadsafe(_settle(), self._loop).result(1.0)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(2.0)
        if not self._thread.is_alive():
            self._loop.close()


async def _settle() -> None:
    """Let the connection's tasks end: an aborted socket closes one turn of the loop later."""
    rest = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
    await asyncio.sleep(0)
