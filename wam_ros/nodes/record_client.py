"""Speak to a recorder: start and stop episodes, hear how it is doing."""

from __future__ import annotations

import time
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor

from wam_ros.recording.episode import VERDICTS
from wam_ros.srv import StartEpisode, StopEpisode


class RecordClient:
    """``status`` is the recorder's newest report, text to text; empty until one was heard."""

    def __init__(self, namespace: str = "wam") -> None:
        rclpy.init()
        self._prefix = namespace.strip("/")
        self._node = rclpy.create_node("wam_record", namespace=f"/{self._prefix}")
        self._spin = SingleThreadedExecutor()
        self._spin.add_node(self._node)
        self.status: dict[str, str] = {}
        self._node.create_subscription(DiagnosticArray, "/diagnostics", self._hear, 10)
        self._start = self._node.create_client(StartEpisode, "start_episode")
        self._stop = self._node.create_client(StopEpisode, "stop_episode")

    def _hear(self, message: Any) -> None:
        for entry in message.status:
            if entry.name == f"{self._prefix}: recorder":
                self.status = {v.key: v.value for v in entry.values}

    def spin(self, seconds: float) -> None:
        """Process messages for ``seconds``."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._spin.spin_once(timeout_sec=max(0.0, end - time.monotonic()))

    def wait(self, seconds: float) -> bool:
        """Whether a recorder reports and answers within ``seconds``."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.spin(0.1)
            if self.status and self._start.service_is_ready() and self._stop.service_is_ready():
                return True
        return False

    def start(self, instruction: str = "") -> tuple[bool, str]:
        """Begin an episode; returns whether it began and what the recorder says."""
        return self._call(self._start, StartEpisode.Request(instruction=instruction))

    def stop(self, verdict: str, note: str = "") -> tuple[bool, str]:
        """End the episode, or judge the last one: ``success``, ``failure`` or ``discard``."""
        request = StopEpisode.Request(verdict=VERDICTS.index(verdict), note=note)  # type: ignore[arg-type]
        return self._call(self._stop, request)

    def _call(self, client: Any, request: Any, seconds: float = 10.0) -> tuple[bool, str]:
        end = time.monotonic() + seconds
        while not client.service_is_ready() and time.monotonic() < end:
            self.spin(0.05)
        call = client.call_async(request)
        while not call.done() and time.monotonic() < end:
            self.spin(0.02)
        if not call.done():
            return False, f"the recorder did not answer in {seconds:.0f} s"
        return bool(call.result().success), str(call.result().message)

    def close(self) -> None:
        """Leave the graph."""
        self._node.destroy_node()
        rclpy.try_shutdown()
