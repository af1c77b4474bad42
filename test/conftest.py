"""Fixtures for tests that start real nodes: a DDS domain per test, processes that go away."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

settings.register_profile(
    "many", max_examples=int(os.environ.get("WAM_EXAMPLES", "2000")), deadline=None
)

ROOT = Path(__file__).resolve().parent.parent

# MuJoCo reads this once, at its first import; without a display its default aborts the process.
os.environ.setdefault("MUJOCO_GL", "osmesa")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the other core is the other worker's


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With pytest-xdist, tests with real nodes run one after another in one worker.

    Two graphs at a time would be too much for two cores. Every other module stays together, so that
    what its tests share is made once.
    """
    for item in items:
        live = "domain_id" in getattr(item, "fixturenames", ())
        group = "live" if live else item.nodeid.partition("::")[0]
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(autouse=True)
def _give_way(request: pytest.FixtureRequest) -> Iterator[None]:
    """What needs no real time leaves the processor to tests that do, where that can be undone."""
    live = "domain_id" in request.fixturenames
    if live or "PYTEST_XDIST_WORKER" not in os.environ or os.geteuid() != 0:
        yield
        return
    before = os.getpriority(os.PRIO_PROCESS, 0)
    os.setpriority(os.PRIO_PROCESS, 0, before + 5)
    yield
    os.setpriority(os.PRIO_PROCESS, 0, before)


def _free_domain() -> int:
    """Return a domain whose first multicast discovery port nobody on this machine has bound."""
    start = os.getpid() % 60
    for step in range(60):
        domain = 20 + (start + step) % 60
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("", 7400 + 250 * domain))
            except OSError:
                continue
        return domain
    raise RuntimeError("no free ROS domain between 20 and 79: stop the ROS processes that run here")


@pytest.fixture
def domain_id(monkeypatch: pytest.MonkeyPatch) -> int:
    """A free ROS domain, set in the environment so that children of the test inherit it."""
    domain = _free_domain()
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    # Nodes that were imported for a test have set their transports for the whole process.
    monkeypatch.delenv("FASTRTPS_DEFAULT_PROFILES_FILE", raising=False)
    return domain


@pytest.fixture
def node_process(domain_id: int) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Return ``start(module, *ros_args)``; every process it starts ends with the test.

    Standard error goes into standard output, a file whose path is the process's ``log`` attribute.
    """
    started: list[subprocess.Popen[str]] = []
    folder = tempfile.TemporaryDirectory(prefix="wam_ros_test_")

    def start(module: str, *ros_args: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", module]
        if ros_args:
            command += ["--ros-args", *ros_args]
        log = Path(folder.name) / f"{len(started)}.log"
        with log.open("w") as output:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        process.log = log  # type: ignore[attr-defined]
        started.append(process)
        return process

    yield start
    for process in started:
        _stop(process)
    folder.cleanup()


@pytest.fixture
def graph(
    domain_id: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Any]]:
    """Return ``start(robot, seconds=40, **arguments)``: a simulation, up and holding.

    Discovery is at its default, as on a robot: under LOCALHOST the executor cannot keep out of
    shared memory.
    """
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "SUBNET")
    pytest.importorskip("wam_ros.nodes.client", reason="needs ROS 2 and the messages")
    from running_graph import Graph

    running: list[Graph] = []

    def start(
        robot: str = "agibot_g1", *, seconds: float = 40.0, make_command: Any = None, **given: str
    ) -> Graph:
        running.append(Graph(tmp_path / "graph.log", robot, given, make_command))
        running[-1].until(running[-1].ready, seconds)
        return running[-1]

    yield start
    for g in running:
        g.close()


@pytest.fixture
def bench(
    node_process: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Any, Callable[..., Any]]]:
    """A stand-in robot and ``start(*parameters)`` for a real executor node, armed on request.

    Both speak UDP only, which rmw_fastrtps does not let them where discovery is LOCALHOST.
    """
    from stand_in import Robot

    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "SUBNET")
    robot = Robot()

    def start(*parameters: str, armed: bool = True) -> Any:
        given = ["-r", "__ns:=/wam", "-p", "robot:=agibot_g1", "-p", "sim:=true"]
        given += ["-p", f"armed:={str(armed).lower()}", *parameters]
        process = node_process("wam_ros.nodes.executor_node", *given)
        if armed:
            robot.until(robot.mode("holding"))
        return process

    yield robot, start
    robot.close()


def _stop(process: subprocess.Popen[str]) -> None:
    """Ask the process group to end, then insist, so that no grandchild outlives the test."""
    for sent in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sent)
        except ProcessLookupError:
            break
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            continue
    process.wait()
