"""The GPU is gone: the policy's process ends, comes back, and waits to be told anew."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("wam_ros.nodes.client", reason="needs ROS 2 and the messages")

from wam_ros.bringup import ProcessSpec
from wam_ros.nodes.run_client import RunGoal
from wam_ros.policy.task_run import Outcome
from wam_ros.supervisor import command

TEXT = "touch the red block"


def lossy(spec: ProcessSpec) -> list[str]:
    line = command(spec)
    if spec.name == "policy":
        module = line.index("-m")
        line[module : module + 2] = [str(Path(__file__).parent / "lossy_policy_node.py")]
    return line


def test_the_process_ends_and_comes_back_without_an_instruction(
    graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WAM_TEST_NOTE", str(tmp_path / "lost"))
    g = graph("franka_droid", make_command=lossy, seed="1")
    c = g.client
    first = g.supervisor.pids["policy"]
    run = RunGoal(c)
    assert run.send(TEXT)
    g.until(lambda: run.result is not None, 30)
    assert run.outcome is Outcome.ERROR, run.result.message
    assert "CUDA error" in run.result.message

    g.until(lambda: any("policy ended (exit code 3); restart" in s for s in g.said), 10)
    c.policy = None
    g.until(lambda: c.executor.mode_name == "holding", 10)
    assert c.executor.armed
    g.until(lambda: c.policy is not None and c.policy.state_name == "ready", 30)
    assert g.supervisor.pids["policy"] != first
    assert c.policy.instruction == "" and c.policy.chunks == 0
    still = list(c.executor.reference)
    c.spin(1.0)
    assert c.executor.mode_name == "holding" and list(c.executor.reference) == still

    again = RunGoal(c)
    assert again.send(TEXT)
    g.until(lambda: again.result is not None, 60)
    assert again.outcome is Outcome.SUCCEEDED, again.result.message
