"""Ten minutes of random faults against a real executor (`make soak`)."""

from __future__ import annotations

import os
import signal
import time
from array import array

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("wam_ros.msg", reason="needs the messages")
from stand_in import ARMS
from std_msgs.msg import Bool
from std_srvs.srv import SetBool, Trigger

from wam_ros.nodes.convert import chunk_to_msg


@pytest.mark.slow
def test_soak_random_faults(bench) -> None:
    """WAM_SOAK seconds (600) of random faults; limits hold and the arm tracks again each time."""
    robot, start = bench
    process = start()
    seconds = float(os.environ.get("WAM_SOAK", "600"))
    rng = np.random.default_rng(int(os.environ.get("WAM_SOAK_SEED", "1")))
    robot.policy = robot.wave
    end, done = time.monotonic() + seconds, {}

    def rearm() -> None:
        robot.until(robot.mode("disarmed", "estopped"), 20)
        robot.estop.publish(Bool(data=False))
        # A stop takes its time, and after a jump readings must have been steady for half a second.
        last = time.monotonic() + 20
        while not (
            robot.call(Trigger, "/wam/reset", Trigger.Request()).success
            and robot.call(SetBool, "/wam/arm", SetBool.Request(data=True)).success
        ):
            assert time.monotonic() < last, robot.state
            robot.run(0.2)

    while time.monotonic() < end:
        robot.until(robot.mode("tracking"), 20)
        robot.run(rng.uniform(0.2, 1.5))
        fault = str(
            rng.choice(["policy", "states", "stop", "flood", "garbage", "block", "jump", "estop"])
        )
        done[fault] = done.get(fault, 0) + 1
        if fault == "policy":
            robot.policy = lambda: None
            robot.run(rng.uniform(0.1, 2.0))
            robot.policy = robot.wave
        elif fault == "states":
            robot.publish_states = False
            robot.run(rng.uniform(0.1, 1.0))
            robot.publish_states = True
        elif fault == "stop":
            os.kill(process.pid, signal.SIGSTOP)
            robot.run(rng.uniform(0.05, 1.0))
            os.kill(process.pid, signal.SIGCONT)
        elif fault == "flood":
            for _ in range(500):
                robot.send(robot.wave())
        elif fault == "garbage":
            for _ in range(100):
                msg = chunk_to_msg(robot.wave(), "agibot_g1")
                msg.actions = array("d", rng.normal(0, 1e3, 24 * 22))
                robot.chunks.publish(msg)
                robot.step()
        elif fault == "block":
            robot.blocked = {n: robot.position[n] for n in ARMS[:3]}
            robot.policy = lambda: robot.wave(0.6)
            # The rest of the arm goes on: it may come near the body before the block is noticed.
            robot.until(robot.mode("disarmed", "estopped"), 20)
            robot.blocked, robot.policy = {}, robot.wave
            rearm()
        elif fault == "jump":
            name, robot.frozen = ARMS[int(rng.integers(14))], True
            before = dict(robot.position)
            robot.position[name] += float(rng.choice([-1.5, 1.5]))
            robot.until(robot.mode("disarmed"), 20)
            robot.position, robot.frozen = before, False
            rearm()
        elif fault == "estop":
            robot.estop.publish(Bool(data=True))
            robot.until(robot.mode("estopped"), 20)
            rearm()
        try:
            robot.assert_inside()
        except (AssertionError, pytest.fail.Exception):
            print(f"after {fault}: {robot.modes[-8:]}, {robot.state.reason}, {done}")
            raise
        robot.commands = robot.commands[-2:]
    print(f"faults survived in {seconds:.0f} s: {done}")
    assert sum(done.values()) > seconds / 20
