"""The action `run_instruction` on real nodes, and `wam run` on top of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

pytest.importorskip("wam_ros.nodes.client", reason="needs ROS 2 and the messages")

from running_graph import KEEPS_UP

from wam_ros.nodes.run_client import RunGoal
from wam_ros.policy.task_run import Outcome

RED = "touch the red block"


def goal(g, text: str = RED, deadline: float = 60.0) -> RunGoal:
    made = RunGoal(g.client)
    assert made.send(text, deadline)
    return made


def ended(g, run: RunGoal, seconds: float = 60.0) -> Outcome:
    g.until(lambda: run.result is not None, seconds)
    outcome = run.outcome
    assert outcome is not None
    return outcome


def succeeds(g, text: str = RED) -> RunGoal:
    """A run that succeeds. One that a slow machine's simulation brought down is repeated."""
    for _ in range(4):
        factors = []
        run = goal(g, text)

        def over(run: RunGoal = run, factors: list[float] = factors) -> bool:
            if g.client.sim is not None:
                factors.append(g.client.sim.real_time_factor)
            return run.result is not None

        g.until(over, 60)
        fell_behind = "following error" in run.result.message and min(factors) < KEEPS_UP
        if run.outcome is not Outcome.STOPPED or not fell_behind:
            break
        g.until(lambda: g.client.executor.mode_name == "disarmed", 10)
        g.until(lambda: g.client.arm(True)[0], 10)  # not while it still moves
        g.until(lambda: g.client.executor.mode_name == "holding", 10)
    assert run.outcome is Outcome.SUCCEEDED, (run.result.message, min(factors, default=0.0))
    return run


def holds_without_instruction(g) -> None:
    """After every run the arm comes to rest and nothing is in force."""
    g.until(lambda: g.client.policy.instruction == "", 5)
    g.until(lambda: g.client.executor.mode_name == "holding", 5)


def wam(*line: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "wam_ros.cli", *line],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_it_succeeds_twice_is_cancelled_preempted_and_refused(graph) -> None:
    g = graph("franka_droid", seed="1")
    first = succeeds(g)
    # The simulation forgets the task as soon as the run has ended, so its own word may be gone.
    assert first.feedback.chunks > 0
    g.until(lambda: 0.9 <= first.feedback.progress <= 1.0, 5)  # the result may overtake it
    holds_without_instruction(g)

    # The same words again: what the judge said of the first run must not count.
    again = succeeds(g)
    assert again.result.duration >= 0.4, "the block has to be touched for half a second"

    cancelled = goal(g, "touch the blue block")
    g.until(lambda: g.client.executor.mode_name == "tracking", 10)
    assert cancelled.cancel()
    assert cancelled.outcome is Outcome.CANCELLED
    holds_without_instruction(g)

    old, new = goal(g, "touch the blue block"), goal(g, "touch the green block")
    assert ended(g, old) is Outcome.PREEMPTED
    assert g.client.say("touch the red block")  # the topic takes over from the action
    assert ended(g, new) is Outcome.PREEMPTED
    assert g.client.policy.instruction == "touch the red block"

    assert ended(g, goal(g, "sing me a song")) is Outcome.REFUSED
    assert ended(g, goal(g, "  ")) is Outcome.REFUSED
    holds_without_instruction(g)

    stopped = goal(g, "touch the green block")
    g.until(lambda: g.client.executor.mode_name == "tracking", 10)
    assert g.client.estop()
    assert ended(g, stopped) is Outcome.STOPPED
    g.until(lambda: g.client.policy.instruction == "", 5)


def test_a_policy_that_holds_stalls_and_the_deadline_and_the_operator_end_it(graph) -> None:
    g = graph("franka_droid", policy="hold", cadence="sync", stall_after="2.5")
    stalled = goal(g)
    assert ended(g, stalled) is Outcome.STALLED
    assert stalled.result.duration >= 2.5
    g.until(lambda: stalled.feedback.idle >= 2.5, 5)  # the result may overtake it
    holds_without_instruction(g)
    assert ended(g, goal(g, deadline=1.0)) is Outcome.DEADLINE

    confirmed = goal(g)
    assert g.client.confirm()[0]
    assert ended(g, confirmed) is Outcome.SUCCEEDED
    assert confirmed.result.message == "confirmed by the operator"
    done, why = g.client.confirm()
    assert not done and "no goal" in why


def test_a_slow_policy_in_sync_does_not_stall(graph) -> None:
    """It thinks longer than the stall limit before every chunk."""
    g = graph("franka_droid", cadence="sync", latency="2.5", stall_after="2.0", seed="1")
    run = goal(g, deadline=90.0)
    g.until(lambda: run.feedback is not None and run.feedback.status == "waiting for the model", 10)
    assert ended(g, run, 90) is Outcome.SUCCEEDED
    assert run.feedback.chunks >= 2


def test_wam_run_prints_progress_and_exits_by_outcome(graph, tmp_path) -> None:
    g = graph("franka_droid", seed="1")
    g.client.spin(0.5)
    file = tmp_path / "run.json"
    process = wam("run", RED, "--deadline", "60", "--json", str(file))
    g.until(lambda: process.poll() is not None, 70)
    said = process.communicate()[0]
    assert process.returncode == 0, said
    assert "succeeded after" in said and "chunks" in said and "#" in said
    summary = json.loads(file.read_text())
    assert summary["outcome"] == "succeeded" and summary["chunks"] > 0

    process = wam("run", "touch the green block", "--deadline", "0.2")
    g.until(lambda: process.poll() is not None, 20)
    assert process.returncode == 1
    assert "deadline after" in process.communicate()[0]

    process = wam("run", "touch the blue block")
    g.until(lambda: g.client.policy.instruction == "touch the blue block", 20)
    process.send_signal(signal.SIGINT)
    g.until(lambda: process.poll() is not None, 20)
    assert process.returncode == 1
    assert "cancelled after" in process.communicate()[0]
    holds_without_instruction(g)

    process = wam("run", "touch the blue block")
    g.until(lambda: g.client.policy.instruction == "touch the blue block", 20)
    policy = g.supervisor.pids["policy"]
    os.kill(policy, signal.SIGSTOP)  # it says nothing, and may come to at any time
    g.until(lambda: process.poll() is not None, 20)
    assert process.returncode == 1
    said = process.communicate()[0]
    assert "went away" in said and "NOT CONFIRMED" in said
    g.until(lambda: g.client.executor.reason == "instruction is empty", 10)
    os.kill(policy, signal.SIGCONT)
    # It goes on with its goal; what a process that has ended sent meanwhile may be lost on it.
    g.until(lambda: "held (instruction is empty)" in g.client.executor.reason, 20)
    assert g.client.executor.mode_name == "holding"
