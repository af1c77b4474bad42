"""Small servers written from each protocol's description, and the observations to show them."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Any

import numpy as np

from wam_ros.contract.data import Observation
from wam_ros.policy.base import Window
from wam_ros.serving import npy_codec
from wam_ros.serving.codec import packb, unpackb
from wam_ros.serving.config import DROID_14B


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


def window(
    contract: Any, count: int = 4, cadence: str = "sync", rows: float = 24.0, start: float = 100.0
) -> Window:
    """Frames whose pixels and states tell them apart."""
    rng = np.random.default_rng(3)
    shape = (contract.view_height, contract.view_width, 3)
    home = np.array([contract.joints[n].home for n in contract.state_names])
    frames = tuple(
        Observation(
            t0=start + i * contract.rates.step_period * contract.rates.video_stride,
            views={c.name: rng.integers(0, 256, shape, np.uint8) for c in contract.cameras},
            state=home + 0.01 * i,
        )
        for i in range(count)
    )
    return Window(frames, cadence=cadence, executed_rows=rows)


class DreamZero:
    """DreamZero's own server: protocol B, text for resets and errors."""

    def __init__(self, rows: Any = None, size: tuple[int, int] | None = (180, 320)) -> None:
        self.rows = rows if rows is not None else np.zeros((24, 8), np.float32)
        self.hello = {**DROID_14B.to_wire(), "image_resolution": size}
        self.seen: list[dict[str, Any]] = []
        self.raw: list[bytes] = []
        self.connections = 0

    async def __call__(self, socket: Any) -> None:
        self.connections += 1
        await socket.send(packb(self.hello))
        async for message in socket:
            self.raw.append(message)
            said = unpackb(message)
            self.seen.append(said)
            await self.reply(socket, said)

    async def reply(self, socket: Any, said: dict[str, Any]) -> None:
        if said["endpoint"] == "reset":
            await socket.send("reset successful")
        else:
            await socket.send(packb(self.rows))

    @property
    def infers(self) -> list[dict[str, Any]]:
        return [s for s in self.seen if s.get("endpoint") == "infer"]


class VllmOmni(DreamZero):
    """vLLM-Omni's endpoint: protocol C, everything in msgpack, errors leave the socket open."""

    fail_next = False

    async def reply(self, socket: Any, said: dict[str, Any]) -> None:
        if self.fail_next:
            self.fail_next = False
            message = "Internal inference error"
            await socket.send(packb({"type": "error", "message": message}))
        elif said.get("endpoint", "infer") == "reset":
            await socket.send(packb({"status": "reset successful"}))
        else:
            await socket.send(packb(self.rows))


class OpenPi:
    """openpi's server: protocol A, stateless."""

    def __init__(self, actions: Any, metadata: dict[str, Any] | None = None) -> None:
        self.actions, self.metadata = actions, metadata or {}
        self.seen: list[dict[str, Any]] = []

    async def __call__(self, socket: Any) -> None:
        await socket.send(packb(self.metadata))
        async for message in socket:
            self.seen.append(unpackb(message))
            timing = {"infer_ms": 1.0}
            await socket.send(packb({"actions": self.actions, "server_timing": timing}))


class LingBotVa:
    """LingBot-VA's server: protocol D. Keeps the count of action frames in its memory."""

    def __init__(self, channels: int, frames: int = 2, steps: int = 8) -> None:
        self.shape = (channels, frames, steps)
        self.seen: list[dict[str, Any]] = []
        self.memory = 0

    async def __call__(self, socket: Any) -> None:
        await socket.send(packb({}))
        async for message in socket:
            said = unpackb(message)
            self.seen.append(said)
            reply: dict[str, Any] = {}
            if said.get("reset"):
                self.memory = 0
            elif said.get("compute_kv_cache"):
                self.memory += said["state"].shape[1]
            else:
                action = np.arange(np.prod(self.shape), dtype=np.float32).reshape(self.shape)
                reply = {"action": action / 1000.0, "server_timing": {}}
            await socket.send(packb(reply))


class Gr00t:
    """GR00T's server: protocol E over ZeroMQ, in a thread. ``drop`` swallows that many requests."""

    def __init__(
        self, modalities: dict[str, Any], actions: dict[str, Any], token: str = ""
    ) -> None:
        import zmq

        self.modalities, self.actions, self.token = modalities, actions, token
        self.seen: list[dict[str, Any]] = []
        self.drop = 0
        self.raw_reply: bytes | None = None
        self._zmq = zmq
        self._context = zmq.Context()
        # A ROUTER can leave a request unanswered, which a REP socket cannot.
        self._socket = self._context.socket(zmq.ROUTER)
        port = self._socket.bind_to_random_port("tcp://127.0.0.1")
        self.url = f"tcp://127.0.0.1:{port}"
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._end.is_set():
            if not self._socket.poll(20):
                continue
            *route, payload = self._socket.recv_multipart()
            said = npy_codec.unpackb(payload)
            self.seen.append(said)
            if self.drop:
                self.drop -= 1
                continue
            reply, self.raw_reply = self.raw_reply, None
            self._socket.send_multipart([*route, reply or npy_codec.packb(self._answer(said))])

    def _answer(self, said: dict[str, Any]) -> Any:
        if self.token and said.get("api_token") != self.token:
            return {"error": "Unauthorized: Invalid API token"}
        endpoint = said["endpoint"]
        if endpoint == "get_modality_config":
            marked = {"__ModalityConfig_class__": True}
            return {k: {**marked, "as_json": v} for k, v in self.modalities.items()}
        if endpoint == "get_action":
            return [self.actions, {}]
        return {"status": "ok"} if endpoint in ("ping", "reset") else {"error": "Unknown endpoint"}

    def stop(self) -> None:
        self._end.set()
        self._thread.join(5)
        self._socket.close(linger=0)
        self._context.term()
