"""Declaring a node's parameters."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from rcl_interfaces.msg import ParameterDescriptor
from rclpy.node import Node


def declare(
    node: Node,
    defaults: Mapping[str, Any],
    changeable: Collection[str] = (),
    loose: Collection[str] = (),
) -> dict[str, Any]:
    """Declare parameters and return their values.

    What a node reads once, at its start, is read-only, so that nobody sets it later and wonders
    why nothing changes. Where a default is a float, a whole number will do (``smoothing:=0``).

    Parameters
    ----------
    node, defaults
        Where, and name and default of each.
    changeable
        Names that the node looks at, or is told about, while it runs.
    loose
        Names that take any type: on a command line ``true`` is a bool and ``auto`` a string.

    Raises
    ------
    ValueError
        A parameter that must be a number is none.
    """
    values = {}
    for name, default in defaults.items():
        number = isinstance(default, float)
        descriptor = ParameterDescriptor(
            read_only=name not in changeable, dynamic_typing=number or name in loose
        )
        value = node.declare_parameter(name, default, descriptor).value
        if number:
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise ValueError(f"parameter {name} is {value!r}, which is not a number")
            value = float(value)
        values[name] = value
    return values
