"""Message types named in a contract, found at run time so that vendor packages stay optional."""

from __future__ import annotations

import importlib
from typing import Any

from sensor_msgs.msg import JointState


class TypeMissing(LookupError):
    """A message type that is not installed; names the package to source."""


def message_type(name: str) -> Any:
    """Return the class of ``pkg/msg/Type``; raises TypeMissing when it cannot be imported."""
    package, _, cls = name.replace("/msg/", "/").partition("/")
    try:
        return getattr(importlib.import_module(f"{package}.msg"), cls)
    except (ImportError, AttributeError) as err:
        raise TypeMissing(
            f"message type {name} is not installed; source the workspace that has '{package}'"
        ) from err


def source_type(name: str, sim: bool) -> Any:
    """Like `message_type`, but in simulation a missing vendor type becomes JointState.

    The simulated robot publishes JointState on the same topic with the same raw units.
    """
    try:
        return message_type(name)
    except TypeMissing:
        if sim:
            return JointState
        raise
