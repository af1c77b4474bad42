"""Floods and malformed chunks through the real node."""

from __future__ import annotations

import time
from array import array

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("wam_ros.msg", reason="needs the messages")
from wam_ros.nodes.convert import chunk_to_msg, to_stamp


def test_flood_of_chunks_at_a_kilohertz(bench) -> None:
    robot, start = bench
    start()
    end, sent, due = time.monotonic() + 2.0, 0, time.monotonic()
    while time.monotonic() < end:
        if sent % 20 == 0:
            made = chunk_to_msg(robot.wave(), "agibot_g1")
        made.header.stamp = to_stamp(time.time())  # each is newer than the last
        made.sequence = sent + 1
        robot.chunks.publish(made)
        if sent % 5 == 0:
            robot.step()
        sent += 1
        due += 0.001
        time.sleep(max(0.0, due - time.monotonic()))
    robot.run(0.2)
    assert sent > 400
    assert 10 < robot.state.chunks_accepted <= 2.3 / 0.02
    robot.until(robot.mode("holding"), 5)
    robot.assert_inside()


def test_malformed_chunks_through_the_node(bench) -> None:
    robot, start = bench
    start()
    rng = np.random.default_rng(7)
    for k in range(2000):
        msg = chunk_to_msg(robot.wave(0.0), "agibot_g1")
        kind = k % 7
        if kind == 0:
            msg.actions[int(rng.integers(len(msg.actions)))] = float("nan")
            msg.actions = array("d", [float("nan")] * 24 * 22)
        elif kind == 1:
            msg.actions = msg.actions[: int(rng.integers(len(msg.actions)))]
        elif kind == 2:
            msg.names = msg.names[: int(rng.integers(22))]
        elif kind == 3:
            msg.horizon = int(rng.integers(2**31))
        elif kind == 4:
            msg.step_period = float(rng.choice([0.0, -1.0, np.inf, np.nan]))
        elif kind == 5:
            msg.kinds = [9] * len(msg.names)
        else:
            msg.header.stamp.sec = int(rng.integers(2**31 - 1))
        robot.chunks.publish(msg)
        robot.step()
    robot.run(0.3)
    assert robot.state.mode_name == "holding"
    assert robot.state.chunks_accepted == 0 and robot.state.chunks_rejected > 0
    robot.policy = robot.wave
    robot.until(robot.mode("tracking"), 5)
    robot.assert_inside()
