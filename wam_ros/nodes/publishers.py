"""Publishers for the contract's command topics, one small class per message type.

Messages are built once and refilled: constructing them costs more than publishing.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Any

from geometry_msgs.msg import Twist
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from wam_ros.contract.data import FloatArray
from wam_ros.execution import Executor
from wam_ros.execution.outputs import Channel
from wam_ros.nodes.convert import to_stamp
from wam_ros.nodes.gripper_action import GRIPPER, GripperSender, action_type

Send = Callable[[Executor, FloatArray, float], None]
"""``send(core, command, now)``: command ``(D,)`` in contract units, now in ROS seconds."""


def command_publisher(node: Node, core: Executor, channel: Channel) -> Send:
    """Return the sender of one output, in the driver's message type.

    An output of unknown type (simulation only), or a GripperCommand where control_msgs is not
    installed, is sent as JointState.
    """
    names = core.base.names if channel.velocity else core.names
    joints = [names[i] for i in channel.columns]
    kind, topic = channel.output.type, channel.output.topic
    qos = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
    if channel.velocity and kind == "geometry_msgs/msg/Twist":
        return _twist(node.create_publisher(Twist, topic, qos), channel)
    if kind == "std_msgs/msg/Float64MultiArray":
        return _array(node.create_publisher(Float64MultiArray, topic, qos), channel)
    if kind == "trajectory_msgs/msg/JointTrajectory":
        return _trajectory(node.create_publisher(JointTrajectory, topic, qos), channel, joints)
    if kind == GRIPPER and action_type() is not None:
        sender = GripperSender(node, topic, channel.output.max_effort)
        return lambda core, command, _: sender.send(float(channel.message(core, command)[0]))
    return _joint_state(node.create_publisher(JointState, topic, qos), channel, joints)


def _array(publisher: Any, channel: Channel) -> Send:
    msg = Float64MultiArray()

    def send(core: Executor, command: FloatArray, _: float) -> None:
        msg.data = array("d", channel.message(core, command))
        publisher.publish(msg)

    return send


def _joint_state(publisher: Any, channel: Channel, joints: list[str]) -> Send:
    msg = JointState(name=joints)

    def send(core: Executor, command: FloatArray, now: float) -> None:
        values = array("d", channel.message(core, command))
        if channel.velocity:
            msg.velocity = values
        else:
            msg.position = values
        msg.header.stamp = to_stamp(now)
        publisher.publish(msg)

    return send


def _twist(publisher: Any, channel: Channel) -> Send:
    """Forward speed, and yaw rate where the output has a second joint."""
    msg = Twist()

    def send(core: Executor, command: FloatArray, _: float) -> None:
        values = channel.message(core, command)
        msg.linear.x = float(values[0])
        msg.angular.z = float(values[1]) if len(values) > 1 else 0.0
        publisher.publish(msg)

    return send


def _trajectory(publisher: Any, channel: Channel, joints: list[str]) -> Send:
    msg = JointTrajectory(joint_names=joints)

    def send(core: Executor, _: FloatArray, now: float) -> None:
        points = []
        for p in channel.window(core):
            point = JointTrajectoryPoint(
                positions=array("d", p.positions),
                velocities=array("d", p.velocities),
                accelerations=array("d", p.accelerations),
            )
            after = to_stamp(p.after)
            point.time_from_start.sec, point.time_from_start.nanosec = after.sec, after.nanosec
            points.append(point)
        msg.points = points
        msg.header.stamp = to_stamp(now)
        publisher.publish(msg)

    return send
