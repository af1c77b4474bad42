"""Build a /diagnostics message for one component."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node


def status(node: Node, name: str, level: int, text: str, values: Mapping[str, str]) -> Any:
    """One component's status; ``level`` is 0 ok, 1 warning, 2 error."""
    entry = DiagnosticStatus(
        level=bytes([level]),
        name=f"{node.get_namespace().strip('/') or 'wam'}: {name}",
        message=text,
        values=[KeyValue(key=k, value=v) for k, v in values.items()],
    )
    array = DiagnosticArray(status=[entry])
    array.header.stamp = node.get_clock().now().to_msg()
    return array
