"""A running graph and a client that listens to it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from wam_ros.bringup import ProcessSpec, processes
from wam_ros.nodes.client import GraphClient
from wam_ros.supervisor import Supervisor, command


class Graph:
    """A running simulation and a client that listens to it."""

    def __init__(
        self,
        log: Path,
        robot: str,
        arguments: dict[str, str],
        make_command: Callable[[ProcessSpec], list[str]] | None = None,
    ) -> None:
        self.log = log
        self.said: list[str] = []
        self.supervisor = Supervisor(
            processes(robot, arguments),
            make_command or command,
            log=log,
            say=self.said.append,
        )
        self.client = GraphClient(observations=True)

    def until(self, done: Callable[[], bool], seconds: float = 40.0) -> None:
        """Poll until ``done``; fails with the log's end."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.client.spin(0.05)
            self.supervisor.poll()
            if done():
                return
        tail = self.log.read_text(errors="replace")[-1500:]
        pytest.fail(
            f"{self.said}\n{self.client.policy}\n{self.client.executor}\n{self.client.sim}\n{tail}"
        )

    def ready(self) -> bool:
        c = self.client
        return (
            c.policy is not None
            and c.policy.state_name in ("ready", "running")
            and c.executor is not None
            and c.executor.mode_name == "holding"
            and c.observation is not None
            and c.sim is not None
        )

    def close(self) -> None:
        self.client.close()
        self.supervisor.stop()
