"""The whole graph with the model in a Python of its own that has torch and no ROS."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")
pytest.importorskip("wam_ros.nodes.client", reason="needs ROS 2 and the messages")

import torch_python
from random_checkpoint import write_checkpoint

PROMPT = "touch the red block"


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """Such a Python; it is asserted to know torch and neither ROS nor this package."""
    made = torch_python.make(tmp_path / "venv")
    look = "import importlib.util as u; print([bool(u.find_spec(n)) for n in %r])"
    names = ["torch", "transformers", "websockets", "rclpy", "sensor_msgs", "wam_ros"]
    said = subprocess.run(
        [made, "-c", look % names], cwd=tmp_path, env={"PATH": os.environ["PATH"]},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert said.stdout.strip() == str([True, True, True, False, False, False])
    return made


@pytest.mark.slow
@pytest.mark.parametrize("robot", ["franka_droid", "yam", "agibot_g1"])
def test_chunks_flow_and_a_killed_server_comes_back(
    graph: Any, python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, robot: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    checkpoint = write_checkpoint(tmp_path / "random", reach=0.1)
    g = graph(
        robot, seconds=120.0, policy="wam", checkpoint=str(checkpoint), cadence="sync",
        model_python=str(python),
    )  # fmt: skip
    c = g.client
    maps = Path(f"/proc/{g.supervisor.pids['model']}/maps").read_text()
    assert "libtorch" in maps and "librcl" not in maps
    assert c.policy.backend == "wam_serve"
    assert c.policy.model.startswith("random at ws://127.0.0.1:")
    assert c.policy.precision == "fp32"

    assert c.say(PROMPT)
    g.until(lambda: c.executor.chunks_accepted >= 3, 60)
    g.until(lambda: c.executor.mode_name == "tracking", 20)
    assert c.policy.latency_p50 > 0

    before = g.supervisor.pids["model"]
    os.kill(before, signal.SIGKILL)
    g.until(lambda: "ws://127.0.0.1" in c.policy.reason, 30)
    g.until(lambda: c.executor.mode_name == "holding", 30)
    assert c.executor.armed, "a lost model must not disarm"
    assert c.policy.instruction == PROMPT, "the policy node did not crash"
    assert any("model ended (signal SIGKILL)" in line for line in g.said)

    accepted = c.executor.chunks_accepted
    g.until(lambda: c.executor.chunks_accepted >= accepted + 2, 120)
    assert g.supervisor.pids["model"] != before
    assert c.policy.state_name == "running" and c.policy.reason == ""
    assert c.executor.armed
