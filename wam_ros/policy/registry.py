"""Backends by name. A new backend is one line here; no node changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from wam_ros.policy.base import Policy, PolicyError
from wam_ros.policy.replay import ReplayPolicy
from wam_ros.policy.scripted import ScriptedPolicy

_FACTORIES: dict[str, Callable[[Mapping[str, Any]], Policy]] = {
    "scripted": lambda o: ScriptedPolicy(latency=float(o.get("latency", 0.1))),
    "replay": lambda o: ReplayPolicy(str(o.get("replay_file", ""))),
}
BACKENDS = tuple(_FACTORIES)


def make(name: str, options: Mapping[str, Any]) -> Policy:
    """Build backend ``name``; PolicyError names the backends there are."""
    if name not in _FACTORIES:
        raise PolicyError(f"unknown policy '{name}'; there are {', '.join(BACKENDS)}")
    return _FACTORIES[name](options)
