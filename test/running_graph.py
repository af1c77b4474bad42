"""A running graph and a client that listens to it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from wam_ros.bringup import ProcessSpec, processes
from wam_ros.nodes.client import GraphClient
from wam_ros.supervisor import Supervisor, command

KEEPS_UP = 0.95
"""Real-time factor from which a simulation counts as in step with the wall clock."""
_RECENT = 4.0
"""Seconds before a trip in which a slow simulation explains it."""
_RETRIES = 3


@dataclass
class _Watch:
    """What is seen while an instruction is carried out."""

    trip: str = ""
    factors: list[tuple[float, float]] = field(default_factory=list)

    @property
    def slowest(self) -> float:
        return min(f for _, f in self.factors)

    def look(self, client: GraphClient) -> bool:
        """Whether it is done, or the executor has disarmed after a following error."""
        executor, now = client.executor, time.monotonic()
        recent = [x for x in self.factors if x[0] > now - _RECENT]
        self.factors = [*recent, (now, client.sim.real_time_factor)]
        if executor.reason.startswith("following error"):
            self.trip = executor.reason
        return bool(client.sim.success) or bool(self.trip and not executor.armed)


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
            processes(robot, {"policy": "scripted", **arguments}),
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

    def set_parameter(self, node: str, name: str, value: str) -> None:
        """Set a parameter of ``/wam/<node>``; fails with the node's reason when it refuses."""
        reason = self.client.set_parameter(node, name, value, 10.0)
        assert not reason, reason

    def carry_out(self, text: str, seconds: float = 40.0) -> int:
        """Say ``text`` and wait until the simulation calls it done; returns how often again.

        On a machine without time to spare the simulated arm falls behind the wall clock, and the
        executor trips on its following error, as it must. Only if the simulation itself reported
        that it was slow around then, the arm is armed and told again, a few times at most; a trip
        of an arm that kept up fails the test.
        """
        c = self.client
        for attempt in range(_RETRIES + 1):
            assert c.say(text), c.policy
            seen = _Watch()
            self.until(lambda seen=seen: seen.look(c), seconds)  # type: ignore[misc]
            if c.sim.success:
                return attempt
            end = time.monotonic() + 1.5
            while time.monotonic() < end:  # the factor covers a second, and comes at its end
                c.spin(0.05)
                seen.look(c)
            if attempt == _RETRIES or seen.slowest >= KEEPS_UP:
                break
            assert c.say("")
            assert c.arm(True)[0], c.executor
            self.until(lambda: c.executor.mode_name == "holding", 10)
        pytest.fail(f"{seen.trip}; slowest real-time factor {seen.slowest:.2f}, retries {attempt}")

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
