"""Backends for rollouts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wam_ros.policy.base import Policy
from wam_ros.policy.registry import make
from wam_ros.policy.scripted import ScriptedPolicy


def teacher(latency: float = 0.1) -> ScriptedPolicy:
    """The scripted teacher without its sleep: a rollout charges ``latency`` (s) itself.

    Its clock stands still, so that a plan does not depend on how fast this machine is. Give the
    rollout the same ``latency``.
    """
    return ScriptedPolicy(latency, clock=lambda: 0.0, sleep=lambda _: None)


def make_policy(name: str, options: Mapping[str, Any], latency: float = 0.1) -> Policy:
    """Backend ``name`` as `policy.registry.make` builds it; ``scripted`` does not sleep."""
    return teacher(latency) if name == "scripted" else make(name, options)
