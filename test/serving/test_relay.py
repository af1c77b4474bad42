"""The graph keeps its arm still while the link to the model is bad, and goes on afterwards."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from protocol_servers import Background
from relay import Relay

from wam_ros.bringup import processes
from wam_ros.supervisor import Supervisor

client_module = pytest.importorskip("wam_ros.nodes.client", reason="needs ROS 2 and the messages")

ROBOT, TASK = "yam", "touch the green block with the right hand"


@pytest.fixture
def teacher() -> Iterator[int]:
    """Port of `wam serve` around the scripted teacher, which takes 0.1 s a call."""
    line = ["-m", "wam_ros.serving.cli", "serve", ROBOT, "--policy", "scripted", "--port", "0"]
    process = subprocess.Popen(
        [sys.executable, *line, "--option", "latency=0.1"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    address = next(w for w in process.stdout.readline().split() if "://" in w)
    yield int(address.rpartition(":")[2])
    process.terminate()
    process.wait(15)


@pytest.fixture
def relayed(
    teacher: int, background: Background, domain_id: int, tmp_path: Path
) -> Iterator[tuple[Relay, Any, Callable[..., None]]]:
    """A running simulation whose policy node reaches the teacher through a relay."""

    async def make() -> Relay:
        made = Relay(teacher)
        await made.start()
        return made

    relay = background.call(make())
    given = {
        "policy": "wam_serve",
        "server": f"ws://127.0.0.1:{relay.port}",
        "server_timeout": "2.0",
    }
    log = tmp_path / "graph.log"
    supervisor = Supervisor(processes(ROBOT, given), log=log, say=lambda _: None)
    client = client_module.GraphClient(observations=True)

    def until(done: Callable[[], bool], seconds: float = 40.0) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            client.spin(0.05)
            supervisor.poll()
            if done():
                return
        pytest.fail(f"{client.policy}\n{client.executor}\n{client.sim}\n{log.read_text()[-1500:]}")

    try:
        yield relay, client, until
    finally:
        client.close()
        supervisor.stop()


@pytest.mark.slow
def test_a_link_that_is_delayed_cut_stalled_and_pulled(
    relayed: Any, background: Background
) -> None:
    relay, c, until = relayed
    relay.delay, relay.loss = 0.02, 0.02
    until(lambda: c.policy is not None and c.policy.state_name == "ready", 60)
    until(lambda: c.executor is not None and c.executor.mode_name == "holding")
    until(lambda: c.observation is not None and c.sim is not None)
    assert c.say(TASK)
    until(lambda: c.executor.mode_name == "tracking")

    background.call(relay.cut())
    until(lambda: c.executor.mode_name == "holding", 15)
    until(lambda: str(relay.port) in c.policy.reason, 15)
    accepted = c.executor.chunks_accepted
    assert c.executor.armed, "a bad link must not disarm"

    background.call(relay.mend())
    until(lambda: c.executor.chunks_accepted > accepted, 20)
    until(lambda: c.executor.mode_name == "tracking", 20)

    relay.stalled = True  # the connection stands, and nothing comes
    until(lambda: "no answer within" in c.policy.reason, 15)
    until(lambda: c.executor.mode_name == "holding", 15)
    accepted = c.executor.chunks_accepted

    background.call(relay.mend())
    until(lambda: c.executor.chunks_accepted > accepted, 25)
    until(lambda: c.executor.mode_name == "tracking", 20)

    background.call(relay.freeze())  # the cable is pulled: the server still believes in us
    until(lambda: "no answer within" in c.policy.reason, 15)
    accepted = c.executor.chunks_accepted
    until(lambda: c.executor.chunks_accepted > accepted, 12)
    until(lambda: c.sim.success, 60)
    assert relay.connections >= 4
