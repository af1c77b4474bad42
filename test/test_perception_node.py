"""The perception node with faulty inputs: it says what is wrong and keeps running."""

from __future__ import annotations

import time
from array import array
from collections.abc import Iterator

import numpy as np
import pytest

from wam_ros.contract import load_contract

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2")
convert = pytest.importorskip("wam_ros.nodes.convert", reason="needs the built messages")

YAM = load_contract("yam")


class Robot:
    """Publishes what a pair of YAM arms would, with faults on demand."""

    def __init__(self) -> None:
        from diagnostic_msgs.msg import DiagnosticArray
        from rclpy.qos import qos_profile_sensor_data as qos
        from sensor_msgs.msg import Image, JointState
        from wam_ros.msg import Observation

        rclpy.init()
        self.node = rclpy.create_node("robot")
        self.cameras = {
            c.name: self.node.create_publisher(Image, c.topic, qos) for c in YAM.cameras
        }
        self.joints = [
            (s, self.node.create_publisher(JointState, s.topic, qos)) for s in YAM.sources
        ]
        self.observations: list = []
        self.text = ""
        self.node.create_subscription(
            Observation, "/wam/observation", self.observations.append, qos
        )
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        self.state_type = JointState
        self.silent: str | None = None
        self.encoding = "rgb8"
        self.bad_joint = ""
        self.late = 0.0
        self.keep = lambda i: True
        self.count = 0

    def _on_diagnostics(self, message) -> None:
        for status in message.status:
            if status.name.endswith("perception"):
                self.text = status.message

    def run(self, done, seconds: float = 20.0) -> bool:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.publish()
            for _ in range(10):
                rclpy.spin_once(self.node, timeout_sec=0.003)
            if done():
                return True
        return False

    def publish(self) -> None:
        now = self.node.get_clock().now()
        stamp = now.to_msg()
        self.count += 1
        picture = np.zeros((48, 64, 3), np.uint8)
        for name, publisher in self.cameras.items():
            if name == "right" and not self.keep(self.count):
                continue
            if name != self.silent:
                shown = convert.to_stamp(now.nanoseconds * 1e-9 - self.late * (name == "top"))
                message = convert.image_msg(picture, shown, name)
                message.encoding = self.encoding
                publisher.publish(message)
        for source, publisher in self.joints:
            names = [j for j in reversed(source.joints) if self.bad_joint != f"-{j}"]
            # Raw units of the driver, so that every joint reads 0.5 in the contract's.
            raw = (0.5 - source.offset) / source.scale
            values = [float("nan") if j == self.bad_joint else raw for j in names]
            message = self.state_type(name=names, position=array("d", values))
            message.header.stamp = stamp
            publisher.publish(message)


@pytest.fixture
def robot(node_process) -> Iterator[Robot]:
    node_process("wam_ros.nodes.perception_node", "-r", "__ns:=/wam", "-p", "robot:=yam")
    robot = Robot()
    assert robot.run(lambda: len(robot.observations) > 3)
    yield robot
    robot.node.destroy_node()
    rclpy.try_shutdown()


def test_faults_are_named_and_recovery_is_automatic(robot: Robot) -> None:
    first = robot.observations[-1]
    assert list(first.view_names) == ["top", "left", "right"]
    assert first.state[0] == pytest.approx(0.5)
    assert YAM.sources[1].scale != 1.0
    assert first.state[6] == pytest.approx(0.5)

    def recovers() -> bool:
        count = len(robot.observations)
        return robot.run(lambda: len(robot.observations) > count + 3)

    robot.silent = "left"
    assert robot.run(lambda: "nothing from 'left' on /camera/left" in robot.text)
    robot.silent = None
    assert recovers()

    robot.encoding = "16UC1"
    assert robot.run(lambda: "'16UC1' is not supported" in robot.text)
    robot.encoding = "rgb8"
    assert recovers()

    robot.bad_joint = "left_joint3"
    assert robot.run(lambda: "'left_joint3' is nan" in robot.text)
    robot.bad_joint = "-right_joint2"
    assert robot.run(lambda: "has no joint 'right_joint2'" in robot.text)
    robot.bad_joint = ""
    assert recovers()

    robot.late = 5.0
    assert robot.run(lambda: "stamps of 'top' on /camera/top are" in robot.text)
    assert "behind ROS time" in robot.text
    robot.late = 0.0
    assert recovers()

    # Half of the frames are gone, in bursts as a full segment loses them; the rest goes on.
    robot.keep = lambda i: i % 4 < 2
    assert robot.run(lambda: "frames of 'right' are lost" in robot.text, 40.0)
    assert "export FASTRTPS_DEFAULT_PROFILES_FILE=" in robot.text
    assert recovers()
    robot.keep = lambda i: True
    assert robot.run(lambda: robot.text == "3 views in step", 40.0)


def test_without_autostart_a_lifecycle_manager_drives_it(node_process) -> None:
    from lifecycle_msgs.msg import Transition
    from lifecycle_msgs.srv import ChangeState

    node_process(
        "wam_ros.nodes.perception_node",
        *("-r", "__ns:=/wam", "-p", "robot:=yam", "-p", "autostart:=false"),
    )
    robot = Robot()
    try:
        client = robot.node.create_client(ChangeState, "/wam/perception/change_state")
        assert robot.run(client.service_is_ready)
        assert not robot.run(lambda: bool(robot.observations), 1.5)

        def change(transition: int) -> None:
            call = client.call_async(ChangeState.Request(transition=Transition(id=transition)))
            assert robot.run(call.done)
            assert call.result().success

        change(Transition.TRANSITION_CONFIGURE)
        change(Transition.TRANSITION_ACTIVATE)
        assert robot.run(lambda: len(robot.observations) > 3)
        change(Transition.TRANSITION_DEACTIVATE)
        change(Transition.TRANSITION_CLEANUP)
        count = len(robot.observations)
        assert not robot.run(lambda: len(robot.observations) > count + 1, 1.5)
    finally:
        robot.node.destroy_node()
        rclpy.try_shutdown()
