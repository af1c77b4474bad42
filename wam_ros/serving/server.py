"""A WebSocket server around one policy: one session at a time, limits, health, token, TLS."""

from __future__ import annotations

import asyncio
import hmac
import http
import logging
import ssl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from wam_ros.policy.base import device_lost
from wam_ros.serving.dialect import Dialect

log = logging.getLogger("wam.serve")
BUSY = "busy: this server carries one session at a time; try again when the other client is gone"
CLIENT_HEADER = "X-Wam-Client"
"""A random name that a client sends with every connection, to take over its own session."""
_BUSY_CODE, _ERROR_CODE, _IDLE_CODE = 1013, 1011, 1000


@dataclass(frozen=True)
class Limits:
    """Bounds of a session; seconds and bytes, ``idle`` 0 for none.

    A client whose connection died without a word (cable pulled, power cut) is noticed within
    ``keep_alive``.

    ``call`` bounds one request. A model cannot be interrupted, so after a call that took longer
    the server answers the client and turns others away until the model is back.
    """

    max_bytes: int = 64 * 1024 * 1024
    call: float = 60.0
    idle: float = 0.0
    send: float = 10.0
    keep_alive: float = 15.0


class PolicyServer:
    """Serves ``make_dialect()``, which loads the model, in a thread of its own.

    Parameters
    ----------
    make_dialect
        Called once in the model's thread; may take minutes. ``/healthz`` answers 503 until then.
    token
        Clients must send it as ``Authorization: Api-Key TOKEN`` (or ``Bearer``); empty for none.
    tls
        Context with the server's certificate, or None for plain ``ws://``.
    """

    def __init__(
        self,
        make_dialect: Callable[[], Dialect],
        limits: Limits = Limits(),
        token: str = "",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._make = make_dialect
        self._limits, self._token, self._tls = limits, token, tls
        self._dialect: Dialect | None = None
        self._model = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")
        self._holder: Any = None
        self._late: asyncio.Future[Any] | None = None
        self._lost: BaseException | None = None
        self._stop = asyncio.Event()
        self.port = 0

    async def run(self, host: str, port: int, ready: Callable[[PolicyServer], None]) -> None:
        """Listen, load, call ``ready`` and serve until `stop`, which may come while it loads.

        Raises
        ------
        Exception
            What loading raised, or the model's own error when its device was lost.
        """
        from websockets.asyncio.server import serve

        loop = asyncio.get_running_loop()
        async with serve(
            self._session,
            host,
            port,
            process_request=self._admit,
            compression=None,
            max_size=self._limits.max_bytes,
            ssl=self._tls,
            open_timeout=10,
            close_timeout=2,
            ping_interval=self._limits.keep_alive / 3.0,
            ping_timeout=self._limits.keep_alive * 2.0 / 3.0,
            server_header=None,
        ) as server:
            self.port = next(iter(server.sockets)).getsockname()[1]
            stopped: asyncio.Future[Any] = asyncio.ensure_future(self._stop.wait())
            loading: asyncio.Future[Any] = loop.run_in_executor(self._model, self._make)
            self._late = loading
            await asyncio.wait({loading, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if loading.done():
                self._dialect = loading.result()
                ready(self)
                await stopped
        self._model.shutdown(wait=False, cancel_futures=True)
        if self._lost is not None:
            raise self._lost

    @property
    def busy(self) -> bool:
        """Whether the model is loading or at a call; neither can be interrupted."""
        return self._late is not None and not self._late.done()

    def stop(self) -> None:
        """End `run`; call it from the event loop."""
        self._stop.set()

    # ---- who may come in -----------------------------------------------------------------------

    def _admit(self, connection: Any, request: Any) -> Any:
        if request.path == "/healthz":
            if self._dialect is None:
                return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, "loading\n")
            return connection.respond(http.HTTPStatus.OK, "OK\n")
        if self._token and not self._authorised(request.headers.get("Authorization", "")):
            return connection.respond(http.HTTPStatus.UNAUTHORIZED, "wrong or missing token\n")
        if self._dialect is None:
            return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, "loading\n")
        if self._occupied and not self._holds(request):
            return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, BUSY + "\n")
        return None

    def _authorised(self, header: str) -> bool:
        kind, _, given = header.partition(" ")
        # Header values may hold any Latin-1 character, which compare_digest takes as bytes only.
        same = hmac.compare_digest(given.strip().encode(), self._token.encode())
        return same and kind.lower() in ("api-key", "bearer")

    @property
    def _occupied(self) -> bool:
        return self._holder is not None or self.busy

    def _holds(self, request: Any) -> bool:
        """Whether the session there is belongs to the sender of ``request``."""
        mine = str(request.headers.get(CLIENT_HEADER, ""))
        if self._holder is None or not mine:
            return False
        return hmac.compare_digest(mine.encode(), _client(self._holder).encode())

    # ---- a session -----------------------------------------------------------------------------

    async def _session(self, socket: Any) -> None:
        from websockets.exceptions import ConnectionClosed

        old, who = self._holder, socket.remote_address
        if self._occupied:
            if not self._holds(socket.request):  # two can pass _admit at the same moment
                await socket.close(_BUSY_CODE, BUSY)
                return
            # Its old connection is dead, or it would not be here; no FIN ever came.
            log.info("%s is back as %s: its old session ends", old.remote_address, who)
            old.transport.abort()
        self._holder = socket
        log.info("session begins: %s", who)
        try:
            await self._converse(socket)
        except ConnectionClosed as end:
            log.info("session ends: %s (%s)", who, end)
        except Exception:  # the next client must find a server
            log.exception("session of %s failed", who)
        finally:
            if self._holder is socket:
                self._holder = None

    async def _converse(self, socket: Any) -> None:
        dialect = self._dialect
        assert dialect is not None
        await self._in_model(dialect.begin)
        await self._send(socket, dialect.greeting())
        while True:
            try:
                message = await asyncio.wait_for(socket.recv(), self._limits.idle or None)
            except (TimeoutError, asyncio.TimeoutError):
                await socket.close(_IDLE_CODE, f"idle for {self._limits.idle:g} s")
                return
            reply, end = await self._answer(dialect, message)
            await self._send(socket, reply)
            if end:
                await socket.close(_ERROR_CODE, "the request failed; see the text before")
                return

    async def _answer(self, dialect: Dialect, message: bytes | str) -> tuple[bytes | str, bool]:
        try:
            return await self._in_model(dialect.answer, message), False
        except (TimeoutError, asyncio.TimeoutError):
            error: BaseException = TimeoutError(
                f"the model took longer than {self._limits.call:g} s (--call-timeout)"
            )
            log.error("%s", error)
            return dialect.failure(error)[0], True
        except Exception as err:
            log.warning("request failed: %s: %s", type(err).__name__, err)
            reply, end = dialect.failure(err)
            if device_lost(err):
                self._lost = err
                asyncio.get_running_loop().call_later(0.2, self._stop.set)
            return reply, end

    async def _in_model(self, call: Callable[..., Any], *given: Any) -> Any:
        future = asyncio.get_running_loop().run_in_executor(self._model, call, *given)
        self._late = future
        # Shielded: a client that leaves must not make us believe that the model is free.
        return await asyncio.wait_for(asyncio.shield(future), self._limits.call)

    async def _send(self, socket: Any, message: bytes | str) -> None:
        await asyncio.wait_for(socket.send(message), self._limits.send)


def _client(socket: Any) -> str:
    return str(socket.request.headers.get(CLIENT_HEADER, ""))
