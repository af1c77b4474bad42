"""Publishers for the contract's command topics, one small class per message type.

Messages are built once and refilled: constructing them costs more than publishing.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Any

import numpy as np
from geometry_msgs.msg import Twist
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from wam_ros.contract.data import FloatArray
from wam_ros.execution import Executor
from wam_ros.execution.outputs import Channel
from wam_ros.nodes.convert import to_stamp
from wam_ros.nodes.gripper_action import GRIPPER, GripperSender, action_type
from wam_ros.nodes.qos import RELIABLE

Send = Callable[[Executor, FloatArray, float], None]
"""``send(core, command, now)``: command ``(D,)`` in contract units, now in ROS seconds."""
Fill = Callable[[FloatArray, float], Any]
"""``fill(values, now)``: values in the driver's unit, now in ROS seconds; the filled message."""


def command_publisher(node: Node, core: Executor, channel: Channel) -> Send:
    """Return the sender of one output, in the driver's message type.

    An output of unknown type (simulation only), or a GripperCommand where control_msgs is not
    installed, is sent as JointState.
    """
    if channel.output.type == GRIPPER and action_type() is not None and not channel.velocity:
        o = channel.output
        sender = GripperSender(node, o.topic, o.max_effort, scale=float(np.max(np.abs(o.scale))))

        def ask(core: Executor, command: FloatArray, _: float) -> None:
            values = channel.message(core, command)
            if values is not None:
                sender.send(float(values[0]))

        return ask
    cls, fill = command_message(core, channel)
    publisher = node.create_publisher(cls, channel.output.topic, RELIABLE)

    def send(core: Executor, command: FloatArray, now: float) -> None:
        values = channel.message(core, command)
        if values is not None:
            publisher.publish(fill(values, now))

    if cls is JointTrajectory:  # the window says it all
        return lambda core, command, now: publisher.publish(fill(command, now))
    return send


def command_message(core: Executor, channel: Channel) -> tuple[Any, Fill]:
    """Message class of an output, and what fills one; the same message is filled every time."""
    names = core.base.names if channel.velocity else core.names
    joints = [names[i] for i in channel.columns]
    kind = channel.output.type
    if channel.velocity and kind == "geometry_msgs/msg/Twist":
        return Twist, _twist()
    if kind == "std_msgs/msg/Float64MultiArray":
        return Float64MultiArray, _array()
    if kind == "trajectory_msgs/msg/JointTrajectory":
        return JointTrajectory, _trajectory(core, channel, joints)
    return JointState, _joint_state(channel, joints)


def _array() -> Fill:
    msg = Float64MultiArray()

    def fill(values: FloatArray, _: float) -> Any:
        msg.data = array("d", values)
        return msg

    return fill


def _joint_state(channel: Channel, joints: list[str]) -> Fill:
    msg = JointState(name=joints)

    def fill(values: FloatArray, now: float) -> Any:
        if channel.velocity:
            msg.velocity = array("d", values)
        else:
            msg.position = array("d", values)
        msg.header.stamp = to_stamp(now)
        return msg

    return fill


def _twist() -> Fill:
    """Forward speed, and yaw rate where the output has a second joint."""
    msg = Twist()

    def fill(values: FloatArray, _: float) -> Any:
        msg.linear.x = float(values[0])
        msg.angular.z = float(values[1]) if len(values) > 1 else 0.0
        return msg

    return fill


def _trajectory(core: Executor, channel: Channel, joints: list[str]) -> Fill:
    msg = JointTrajectory(joint_names=joints)

    def fill(_: FloatArray, now: float) -> Any:
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
        return msg

    return fill
