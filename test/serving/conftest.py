"""Servers in this process: ours around a policy, and small ones written from each protocol."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("websockets")
pytest.importorskip("msgpack")

from wam_ros.contract import load_contract  # noqa: E402
from wam_ros.contract.data import Observation  # noqa: E402
from wam_ros.policy.base import Window  # noqa: E402
from wam_ros.policy.hold import HoldPolicy  # noqa: E402
from wam_ros.serving.native import NativeDialect  # noqa: E402
from wam_ros.serving.roboarena import RoboArenaDialect  # noqa: E402
from wam_ros.serving.server import Limits, PolicyServer  # noqa: E402

Handler = Callable[[Any], Awaitable[None]]


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of the recorded reference data."""
    return Path(__file__).resolve().parent.parent / "data" / "golden"


class Background:
    """An event loop in a thread; what was started on it ends with `stop`."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self._tasks: list[Any] = []

    def call(self, coroutine: Any, timeout: float = 20.0) -> Any:
        """Run a coroutine there and return its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(timeout)

    def keep(self, coroutine: Any) -> Any:
        """Let a coroutine run until the end of the test."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        self._tasks.append(future)
        return future

    def stop(self) -> None:
        """Cancel what still runs and end the thread."""
        for task in self._tasks:
            task.cancel()
        with contextlib.suppress(Exception):
            self.call(self._finish())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(5)
        self.loop.close()

    async def _finish(self) -> None:
        rest = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
        for task in rest:
            task.cancel()
        await asyncio.wait_for(asyncio.gather(*rest, return_exceptions=True), 5)


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
        **given: Any,
    ) -> str:
        contract = load_contract(robot)
        hosted = policy or HoldPolicy()
        kind = RoboArenaDialect if dialect == "roboarena" else NativeDialect
        ready = threading.Event()

        def load() -> Any:
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


def window(contract: Any, count: int = 4, cadence: str = "sync", rows: float = 24.0) -> Window:
    """Frames whose pixels and states tell them apart."""
    rng = np.random.default_rng(3)
    shape = (contract.view_height, contract.view_width, 3)
    home = np.array([contract.joints[n].home for n in contract.state_names])
    frames = tuple(
        Observation(
            t0=100.0 + i * contract.rates.step_period * contract.rates.video_stride,
            views={c.name: rng.integers(0, 256, shape, np.uint8) for c in contract.cameras},
            state=home + 0.01 * i,
        )
        for i in range(count)
    )
    return Window(frames, cadence=cadence, executed_rows=rows)
