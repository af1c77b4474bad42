"""Servers in this process: ours around a policy, and small ones written from each protocol."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from protocol_servers import Background

pytest.importorskip("websockets")
pytest.importorskip("msgpack")

from wam_ros.contract import load_contract
from wam_ros.policy.hold import HoldPolicy
from wam_ros.serving.native import NativeDialect
from wam_ros.serving.roboarena import RoboArenaDialect
from wam_ros.serving.server import Limits, PolicyServer

Handler = Callable[[Any], Awaitable[None]]


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of the recorded reference data."""
    return Path(__file__).resolve().parent.parent / "data" / "golden"


@pytest.fixture
def background() -> Iterator[Background]:
    """An event loop for servers."""
    running = Background()
    yield running
    running.stop()


@pytest.fixture
def serve(background: Background) -> Callable[..., str]:
    """``serve(robot, policy, dialect)`` starts our server and returns its address."""

    def start(
        robot: str = "franka_droid",
        policy: Any = None,
        dialect: str = "roboarena",
        limits: Limits | None = None,
        loaded: bool = False,
        **given: Any,
    ) -> str:
        contract = load_contract(robot)
        hosted = policy or HoldPolicy()
        kind = RoboArenaDialect if dialect == "roboarena" else NativeDialect
        ready = threading.Event()

        def load() -> Any:
            if not loaded:
                hosted.configure(contract)
            return kind(hosted, contract)

        async def make() -> PolicyServer:
            return PolicyServer(load, limits or Limits(), **given)

        server = background.call(make())
        future = background.keep(server.run("127.0.0.1", 0, lambda _: ready.set()))
        while not ready.wait(0.05):
            if future.done():
                future.result()
        return f"{'wss' if given.get('tls') else 'ws'}://127.0.0.1:{server.port}"

    return start


@pytest.fixture
def fake(background: Background) -> Callable[[Handler], str]:
    """``fake(handler)`` starts a server whose connections run ``handler(socket)``."""
    from websockets.asyncio.server import serve as listen

    def start(handler: Handler) -> str:
        async def make() -> Any:
            return await listen(handler, "127.0.0.1", 0, compression=None, max_size=None)

        server = background.call(make())
        return f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"

    return start
