"""Publishers for the contract's command topics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from wam_ros.contract.data import FloatArray
from wam_ros.contract.model import Output
from wam_ros.nodes.convert import to_stamp

Publish = Callable[[FloatArray, float], None]


def command_publisher(
    node: Node, output: Output, names: Sequence[str], columns: Sequence[int]
) -> Publish:
    """Return ``publish(values, now)`` for one output, in the driver's message type.

    An output of unknown type (simulation only) is sent as JointState.
    """
    joints = [names[i] for i in columns]
    qos = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
    if output.type == "std_msgs/msg/Float64MultiArray":
        arrays = node.create_publisher(Float64MultiArray, output.topic, qos)
        return lambda values, _: arrays.publish(Float64MultiArray(data=values.tolist()))
    if output.type == "trajectory_msgs/msg/JointTrajectory":
        return _trajectory(node, output, joints, qos)
    states = node.create_publisher(JointState, output.topic, qos)

    def send(values: FloatArray, now: float) -> None:
        msg = JointState(name=joints, position=values.tolist())
        msg.header.stamp = to_stamp(now)
        states.publish(msg)

    return send


def _trajectory(node: Node, output: Output, joints: list[str], qos: Any) -> Publish:
    publisher = node.create_publisher(JointTrajectory, output.topic, qos)
    period = to_stamp(1.0 / output.rate)

    def send(values: FloatArray, _: float) -> None:
        # One point, due after one period: the controller interpolates from where it is.
        point = JointTrajectoryPoint(positions=values.tolist())
        point.time_from_start.sec, point.time_from_start.nanosec = period.sec, period.nanosec
        publisher.publish(JointTrajectory(joint_names=joints, points=[point]))

    return send
