"""The seam to control_msgs/action/GripperCommand: on a ROS installation, but not on PyPI."""

from __future__ import annotations

import importlib
from typing import Any

GRIPPER = "control_msgs/action/GripperCommand"
_STEP = 0.01
"""Least change that is sent while the gripper moves, as a share of the contract's unit."""


def action_type() -> Any | None:
    """The action class, or None where control_msgs is not installed."""
    try:
        return importlib.import_module("control_msgs.action").GripperCommand
    except (ImportError, AttributeError):
        return None


class GripperSender:
    """Send a goal whenever the wanted opening has changed; never waits for an answer.

    A new goal replaces the running one, as gripper controllers expect. Until the action server is
    there nothing is sent, and the present opening is sent when it appears.

    Parameters
    ----------
    node
        Owner of the action client.
    name
        Name of the action.
    max_effort
        Put into every goal; 0 leaves it to the driver.
    scale
        What one of the contract's units is in the driver's, such as 0.085 m.
    client
        For tests: anything with ``server_is_ready()`` and ``send_goal_async(goal)``.
    """

    def __init__(
        self,
        node: Any,
        name: str,
        max_effort: float = 0.0,
        client: Any = None,
        scale: float = 1.0,
    ) -> None:
        found = action_type()
        if found is None:
            raise RuntimeError(
                f"{name} needs control_msgs (apt install ros-$ROS_DISTRO-control-msgs)"
            )
        if client is None:
            from rclpy.action import ActionClient

            client = ActionClient(node, found, name)
        self._goal: Any = found.Goal
        self._client = client
        self._effort = max_effort
        self._step = _STEP * abs(scale)
        self._sent: float | None = None
        self._wanted = float("nan")

    def send(self, position: float) -> None:
        """Ask for ``position``, in the driver's unit."""
        still = position == self._wanted
        self._wanted = position
        if self._sent is not None:
            change = abs(position - self._sent)
            if change == 0.0 or (change < self._step and not still):
                return
        if not self._client.server_is_ready():
            return
        goal = self._goal()
        goal.command.position = position
        goal.command.max_effort = self._effort
        self._client.send_goal_async(goal)
        self._sent = position
