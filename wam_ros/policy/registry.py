"""Backends by name. A new backend is one line here; no node changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from wam_ros.policy.base import Policy, PolicyError
from wam_ros.policy.hold import HoldPolicy
from wam_ros.policy.replay import ReplayPolicy


def _scripted(options: Mapping[str, Any]) -> Policy:
    # Its kinematics need xacro, which an environment that only serves a model does not have.
    from wam_ros.policy.scripted import ScriptedPolicy

    return ScriptedPolicy(latency=float(options.get("latency", 0.1)))


def _wam(options: Mapping[str, Any]) -> Policy:
    from wam_ros.policy.wam import WamPolicy

    return WamPolicy(options)


def _remote(name: str, module: str, driver: str) -> Callable[[Mapping[str, Any]], Policy]:
    """A backend that speaks to a server; its libraries are imported when it is made."""

    def make_one(options: Mapping[str, Any]) -> Policy:
        from wam_ros.policy.remote.backend import RemotePolicy
        from wam_ros.policy.remote.driver import make_options

        where = make_options(options)
        try:
            found = getattr(import_module(f"wam_ros.policy.remote.{module}"), driver)
        except ImportError as err:
            raise PolicyError(
                f"policy:={name} needs the library {err.name}; type: pip install 'wam_ros[serve]'"
            ) from err
        return RemotePolicy(name, found, where)

    return make_one


_FACTORIES: dict[str, Callable[[Mapping[str, Any]], Policy]] = {
    "scripted": _scripted,
    "replay": lambda o: ReplayPolicy(str(o.get("replay_file", ""))),
    "wam": _wam,
    "hold": lambda o: HoldPolicy(),
    "wam_serve": _remote("wam_serve", "native", "NativeDriver"),
    "roboarena": _remote("roboarena", "roboarena", "RoboArenaDriver"),
    "openpi": _remote("openpi", "openpi", "OpenPiDriver"),
    "lingbot_va": _remote("lingbot_va", "lingbot_va", "LingBotVaDriver"),
    "gr00t": _remote("gr00t", "gr00t", "Gr00tDriver"),
}
BACKENDS = tuple(_FACTORIES)
REMOTE = ("wam_serve", "roboarena", "openpi", "lingbot_va", "gr00t")
"""Backends that need ``server:=``."""
SYNC_ONLY = ("lingbot_va",)
"""Backends that have to be told what was executed."""


def make(name: str, options: Mapping[str, Any]) -> Policy:
    """Build backend ``name``; PolicyError names the backends there are."""
    if name not in _FACTORIES:
        raise PolicyError(f"unknown policy '{name}'; there are {', '.join(BACKENDS)}")
    return _FACTORIES[name](options)
