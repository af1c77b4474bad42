"""Processes killed or stopped: recovery is automatic, except for the executor's own death."""

from __future__ import annotations

import os
import signal
import time

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("wam_ros.msg", reason="needs the messages")
from stand_in import ARMS, G1, HOME
from std_msgs.msg import String


def test_killed_policy_is_survived_and_a_new_one_taken_up(bench) -> None:
    robot, start = bench
    start()
    robot.policy = robot.wave
    robot.until(robot.mode("tracking"))
    robot.run(0.7)
    robot.policy = lambda: None
    robot.until(robot.mode("holding"), 5)
    robot.sequence = 0  # a restarted policy counts from the beginning
    robot.policy = robot.wave
    robot.until(robot.mode("tracking"), 5)
    robot.assert_inside()


@pytest.fixture
def chain(bench, node_process, tmp_path):
    """Real perception and policy beside the executor; the policy plays a minute of slow waves.

    Returns the stand-in, the processes by name, and ``begin(name)`` to start one of them (again).
    """
    robot, start = bench
    t = np.arange(1800)[:, None] / 30
    arm = np.isin(G1.action_names, ARMS)
    np.savez(
        tmp_path / "waves.npz",
        actions=HOME + np.where(arm, 0.15 * (1 - np.cos(1.5 * t)), 0.0),
        names=np.array(G1.action_names),
        step_period=1 / 30,
    )
    given = ["-r", "__ns:=/wam", "-p", "robot:=agibot_g1"]
    more = {
        "perception": ["-p", "sim:=true"],
        "policy": ["-p", "policy:=replay", "-p", f"replay_file:={tmp_path / 'waves.npz'}"],
    }
    running = {}

    def begin(name: str) -> None:
        running[name] = node_process(f"wam_ros.nodes.{name}_node", *given, *more[name])

    robot.filming = True
    running["executor"] = start()
    begin("perception")
    begin("policy")
    robot.until(lambda: robot.instruction.get_subscription_count() >= 2)
    return robot, running, begin


def ask_until_tracking(robot) -> None:
    """Say it again and again: a node that has just started may not hear the first time."""

    said = -np.inf

    def done() -> bool:
        nonlocal said
        if time.monotonic() - said > 0.2:
            robot.instruction.publish(String(data="wave"))
            said = time.monotonic()
        return robot.state.mode_name == "tracking"

    robot.until(done, 60)


@pytest.mark.parametrize("name", ["perception", "policy"])
def test_a_killed_process_ends_in_a_hold_and_its_successor_goes_on(chain, name: str) -> None:
    robot, running, begin = chain
    ask_until_tracking(robot)
    os.killpg(running[name].pid, signal.SIGKILL)
    robot.until(robot.mode("holding"), 10)
    robot.run(0.5)
    assert robot.state.mode_name == "holding"
    begin(name)
    if name == "policy":  # it forgets the instruction on purpose: somebody has to say it again
        ask_until_tracking(robot)
    else:
        robot.until(robot.mode("tracking"), 30)
    robot.assert_inside()


@pytest.mark.parametrize("name", ["perception", "policy"])
def test_a_stopped_process_ends_in_a_hold_and_goes_on_by_itself(chain, name: str) -> None:
    robot, running, _ = chain
    ask_until_tracking(robot)
    os.kill(running[name].pid, signal.SIGSTOP)
    robot.until(robot.mode("holding"), 10)
    robot.run(0.5)
    assert robot.state.mode_name == "holding"
    os.kill(running[name].pid, signal.SIGCONT)
    robot.until(robot.mode("tracking"), 20)
    robot.assert_inside()


def test_executor_killed_comes_back_disarmed(bench) -> None:
    robot, start = bench
    first = start()
    robot.policy = robot.wave
    robot.until(robot.mode("tracking"))
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    killed = time.time()
    robot.run(0.3)  # what was on its way
    robot.state = None
    start(armed=False)
    robot.until(robot.mode("disarmed"))
    robot.run(0.5)
    assert [t for t, _ in robot.commands if t > killed] == []
    robot.commands.clear()
    robot.arm()
    robot.until(robot.mode("tracking"), 5)
    robot.assert_inside()


def test_executor_stopped_by_a_signal_goes_on_without_a_leap(bench) -> None:
    robot, start = bench
    process = start()
    robot.policy = robot.wave
    robot.until(robot.mode("tracking"))
    os.kill(process.pid, signal.SIGSTOP)
    robot.run(1.0)
    os.kill(process.pid, signal.SIGCONT)
    robot.run(0.3)
    robot.until(robot.mode("tracking"), 5)
    assert "holding" in robot.modes or "stopping" in robot.modes
    robot.assert_inside()


def test_no_subscriber_is_no_trouble(bench) -> None:
    robot, start = bench
    for subscription in list(robot.node.subscriptions):
        if subscription.topic_name == "/wbc/arm_command":
            robot.node.destroy_subscription(subscription)
    start()
    robot.policy = lambda: robot.wave(0.05)
    robot.until(robot.mode("tracking"))
    robot.run(1.0)
    robot.until(lambda: robot.state.mode_name == "tracking" and robot.state.ticks > 100, 5)
