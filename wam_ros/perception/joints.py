"""Read joint positions out of any message, by field path and by name or order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from wam_ros.contract.model import StateSource


class JointError(ValueError):
    """A joint-state message that cannot be used; names the joint and the topic."""


def extract(message: Any, path: str) -> list[Any]:
    """Follow a field path such as ``position`` or ``motor_states[].position``.

    ``[]`` after a field visits every element, ``[0]`` the first one, ``[-1]`` the last one. Returns
    the values found, in order.

    Raises
    ------
    JointError
        When the message has no such field, or too few elements; names it.
    """
    values = [message]
    for part in path.split("."):
        name, _, rest = part.partition("[")
        try:
            values = [getattr(v, name) for v in values]
            if rest == "]":
                values = [item for v in values for item in v]
            elif rest:
                values = [v[int(rest.removesuffix("]"))] for v in values]
        except AttributeError as err:
            raise JointError(f"message has no field '{name}' (path '{path}')") from err
        except IndexError as err:
            raise JointError(f"'{name}' holds too few elements (path '{path}')") from err
    if len(values) == 1 and not isinstance(values[0], (int, float, str)):
        return list(values[0])
    return values


def read(message: Any, source: StateSource) -> dict[str, float]:
    """Joint positions of ``source`` in contract units, by joint name.

    Raises
    ------
    JointError
        A joint is missing, or its value is not a finite number.
    """
    raw = extract(message, source.field)
    names = extract(message, source.names_field) if source.names_field else []
    if names:
        return _by_name(raw, names, source)
    if len(raw) < len(source.joints):
        raise JointError(
            f"{source.topic} brings {len(raw)} values, but {len(source.joints)} joints are "
            f"expected: {', '.join(source.joints)}"
        )
    return {j: _value(raw[i], j, source) for i, j in enumerate(source.joints)}


def _by_name(raw: Sequence[Any], names: Sequence[str], source: StateSource) -> dict[str, float]:
    index = {n: i for i, n in enumerate(names)}
    result = {}
    for joint in source.joints:
        i = index.get(joint)
        if i is None or i >= len(raw):
            have = ", ".join(names)
            raise JointError(f"{source.topic} has no joint '{joint}'; it has {have}")
        result[joint] = _value(raw[i], joint, source)
    return result


def _value(raw: Any, joint: str, source: StateSource) -> float:
    value = float(raw) * source.scale + source.offset
    if not math.isfinite(value):
        raise JointError(f"{source.topic}: position of '{joint}' is {raw}, not a finite number")
    return value
