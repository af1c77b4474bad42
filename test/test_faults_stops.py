"""E-stop, heartbeat and clock jumps with a real executor."""

from __future__ import annotations

import time

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("wam_ros.msg", reason="needs the messages")
from std_msgs.msg import Bool, String
from std_srvs.srv import SetBool, Trigger

from wam_ros.contract.data import ActionChunk


def test_estop_topic_and_service_latch_until_reset(bench) -> None:
    robot, start = bench
    start()
    robot.policy = robot.wave
    robot.until(robot.mode("tracking"))
    robot.estop.publish(Bool(data=True))
    robot.until(robot.mode("estopped"), 5)
    robot.run(0.5)
    assert robot.state.mode_name == "estopped"
    assert not robot.call(SetBool, "/wam/arm", SetBool.Request(data=True)).success
    refused = robot.call(Trigger, "/wam/reset", Trigger.Request())
    assert not refused.success and "still pressed" in refused.message
    robot.estop.publish(Bool(data=False))
    robot.run(0.2)
    assert robot.call(Trigger, "/wam/reset", Trigger.Request()).success
    robot.arm()
    robot.until(robot.mode("tracking"), 5)
    robot.call(Trigger, "/wam/estop", Trigger.Request())
    robot.until(robot.mode("estopped"), 5)
    robot.run(1.0)
    assert robot.call(Trigger, "/wam/reset", Trigger.Request()).success
    robot.arm()
    robot.until(robot.mode("tracking"), 5)
    for pressed in (True, False):  # the release must not hide the press
        robot.estop.publish(Bool(data=pressed))
    robot.until(robot.mode("estopped"), 5)
    robot.assert_inside()


def test_a_hold_lasts_until_an_instruction_is_given(bench) -> None:
    robot, start = bench
    start()
    robot.policy = robot.wave
    robot.until(robot.mode("tracking"))
    assert robot.call(Trigger, "/wam/hold", Trigger.Request()).success
    robot.until(robot.mode("holding"), 5)
    robot.run(1.0)  # chunks keep coming
    assert robot.state.mode_name == "holding"
    assert "until an instruction is given" in robot.state.reason
    instruction = robot.node.create_publisher(String, "/wam/instruction", 1)
    robot.until(lambda: instruction.get_subscription_count() > 0, 10)
    instruction.publish(String(data="wave again"))
    robot.until(robot.mode("tracking"), 5)
    instruction.publish(String(data=" "))
    robot.until(robot.mode("holding"), 5)
    robot.run(0.5)
    assert robot.state.mode_name == "holding"
    robot.arm()
    robot.until(robot.mode("tracking"), 5)
    robot.assert_inside()


def test_lost_heartbeat_stops_and_disarms(bench) -> None:
    robot, start = bench
    start("-p", "deadman:=1.0")
    robot.policy = robot.wave
    robot.until(robot.mode("tracking"))
    robot.beating = False
    robot.until(robot.mode("disarmed"), 5)
    assert "no heartbeat" in robot.state.reason
    robot.assert_inside()


def test_simulated_time_that_jumps_back_holds_and_goes_on(bench) -> None:
    from rosgraph_msgs.msg import Clock

    robot, start = bench
    clock = robot.node.create_publisher(Clock, "/clock", 1)
    offset = 0.0

    def turn() -> None:
        now = time.time() + offset
        msg = Clock()
        msg.clock.sec, msg.clock.nanosec = int(now), int(now % 1 * 1e9)
        clock.publish(msg)

    plain = robot.step

    def step() -> None:
        turn()
        plain()

    robot.step = step  # type: ignore[method-assign]
    start("-p", "use_sim_time:=true")
    wave = robot.wave

    def policy() -> ActionChunk:
        from dataclasses import replace

        chunk = wave()
        return replace(chunk, t0=chunk.t0 + offset)

    robot.policy = policy
    robot.until(robot.mode("tracking"), 10)
    robot.run(0.5)
    robot.policy = lambda: None
    robot.run(0.2)  # a chunk of the old time that comes after the jump has a reason of its own
    offset = -100.0
    robot.until(lambda: "ROS time jumped" in robot.state.reason, 5)
    robot.until(robot.mode("holding"), 5)
    robot.policy = policy
    robot.until(robot.mode("tracking"), 10)
    p = np.array([c for _, c in robot.commands])
    assert np.abs(np.diff(p, axis=0)).max() < 0.1
