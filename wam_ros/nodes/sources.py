"""Subscribe to a contract's joint-state sources."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from sensor_msgs.msg import JointState

from wam_ros.contract.model import Contract, StateSource
from wam_ros.nodes.mailbox import Mailbox, Unspun
from wam_ros.nodes.types import TypeMissing, source_type

SimpleField = {"field": "position", "names_field": "name"}


def usable_sources(
    node: Node, contract: Contract, sim: bool
) -> tuple[list[tuple[StateSource, Any]], dict[str, str]]:
    """Sources with their message classes, and source name -> problem for the others."""
    found: list[tuple[StateSource, Any]] = []
    problems: dict[str, str] = {}
    for declared in contract.sources:
        try:
            cls = source_type(declared.type, sim)
        except TypeMissing as err:
            problems[declared.name] = f"source '{declared.name}' on {declared.topic}: {err}"
            node.get_logger().error(problems[declared.name])
            continue
        vendor = cls is JointState and declared.type != "sensor_msgs/msg/JointState"
        source = replace(declared, **SimpleField) if vendor else declared  # type: ignore[arg-type]
        found.append((source, cls))
    return found, problems


def subscribe_states(
    node: Node,
    contract: Contract,
    sim: bool,
    callback: Callable[[StateSource, Any], None],
) -> tuple[list[Any], dict[str, str]]:
    """Subscribe to every source; ``callback(source, message)`` runs in the ROS executor.

    Returns the subscriptions, and source name -> problem for those that cannot be made.
    """
    made: list[Any] = []
    found, problems = usable_sources(node, contract, sim)
    for source, cls in found:

        def deliver(message: Any, source: StateSource = source) -> None:
            callback(source, message)

        made.append(node.create_subscription(cls, source.topic, deliver, qos_profile_sensor_data))
    return made, problems


def poll_states(
    node: Node, group: Unspun, contract: Contract, sim: bool
) -> list[tuple[StateSource, Mailbox]]:
    """Subscribe to every source that can be, for a loop that reads the newest message itself."""
    newest = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    found, _ = usable_sources(node, contract, sim)
    return [(s, Mailbox(node, group, cls, s.topic, newest)) for s, cls in found]
