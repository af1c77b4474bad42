"""Joint states that stop, freeze or jump, and an arm that is held."""

from __future__ import annotations

import time

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("wam_ros.msg", reason="needs the messages")
from stand_in import ARMS, COLUMNS, LIMITS
from std_srvs.srv import SetBool


def test_a_silent_driver_means_stale_states_and_recovery_is_automatic(bench) -> None:
    robot, start = bench
    start()
    robot.policy = robot.wave
    robot.until(robot.mode("tracking"))
    robot.publish_states = False
    robot.until(lambda: robot.state.mode_name == "holding" and "stale" in robot.state.reason, 5)
    robot.publish_states = True
    robot.until(robot.mode("tracking"), 5)
    robot.assert_inside()


def test_frozen_joint_states_end_disarmed(bench) -> None:
    robot, start = bench
    start()
    robot.frozen = True
    robot.policy = lambda: robot.wave(0.4)
    robot.until(robot.mode("disarmed"), 15)
    assert "following error" in robot.state.reason
    robot.assert_inside()


def test_jumping_joint_states_disarm_at_once(bench) -> None:
    robot, start = bench
    start()
    robot.policy = robot.wave
    robot.until(robot.mode("tracking"))
    robot.frozen = True
    robot.position[ARMS[1]] -= 1.2
    jumped = time.monotonic()
    robot.until(robot.mode("disarmed"), 5)
    assert f"{ARMS[1]} jumped" in robot.state.reason
    answer = robot.call(SetBool, "/wam/arm", SetBool.Request(data=True))
    # The new reading has to prove itself for half a second.
    assert not answer.success or time.monotonic() - jumped > 0.5
    robot.assert_inside()


def test_blocked_arm_the_reference_does_not_run_away_and_gives_way(bench) -> None:
    robot, start = bench
    start()
    joint = ARMS[0]
    stuck = robot.position[joint] + 0.1
    robot.blocked[joint] = stuck
    robot.policy = lambda: robot.wave(0.4, COLUMNS[:1])
    robot.until(robot.mode("disarmed"), 15)
    robot.run(0.3)  # what was on its way
    assert joint in robot.state.reason and "in its way" in robot.state.reason
    sent = np.array([c for _, c in robot.commands])[:, 0]
    assert sent.max() < stuck + LIMITS[0].following_error + 0.02
    assert abs(sent[-1] - stuck) < 0.02  # given way before it was let go
    robot.assert_inside()
