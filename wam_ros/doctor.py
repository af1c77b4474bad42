"""`wam doctor`: what is installed, what is missing, and what to type."""

from __future__ import annotations

import ctypes.util
import importlib.util
import os
import platform
import re
import resource
import shutil
import sys
from dataclasses import asdict, dataclass
from typing import Any

from wam_ros import dds

BAD = ("missing", "fault")
"""Levels that make `wam doctor` end with exit code 1."""
RT_PRIORITY = 50


@dataclass(frozen=True)
class Finding:
    """One check: ``level`` is ok, note, missing or fault; ``fix`` is what to type."""

    what: str
    level: str
    detail: str
    fix: str = ""


def examine() -> list[Finding]:
    """Look at this machine; nothing is changed."""
    version = platform.python_version()
    supported = (3, 10) <= sys.version_info[:2] <= (3, 12)
    found = [
        Finding(
            "Python",
            "ok" if supported else "note",
            version,
            "" if supported else "use 3.10 to 3.12",
        )
    ]
    found += [
        _module("rclpy", "ROS 2 client", "make build, or source /opt/ros/jazzy/setup.bash"),
        _module("wam_ros.msg", "our messages", "make build (or colcon build)"),
        _module("mujoco", "MuJoCo", "pip install 'wam_ros[sim]'"),
        _module("ruckig", "Ruckig", "pip install ruckig"),
        _module("cv2", "OpenCV", "pip install opencv-python-headless"),
        _optional("torch", "PyTorch", "only the model needs it: make model"),
        _optional("diffusers", "diffusers", "the model's video autoencoder: make model"),
        _optional("transformers", "transformers", "the model's encoders: make model"),
        _optional("launch_ros", "ros2 launch", "`wam launch` does the same without it"),
        _library("OSMesa", "apt-get install libosmesa6"),
    ]
    compiler = shutil.which("cc") or shutil.which("gcc")
    found.append(
        Finding("C compiler", "ok", compiler)
        if compiler
        else Finding("C compiler", "missing", "not found", "apt-get install build-essential")
    )
    found.append(_shared_memory())
    found.append(_real_time())
    chosen = os.environ.get(dds.VARIABLE, "")
    found.append(
        Finding("DDS profile", "ok" if chosen else "note", chosen or "not set in this shell",
                "" if chosen else f"in the camera driver's shell: {dds.environment_line()}")
    )  # fmt: skip
    return found


def graph_findings(namespace: str, diagnostics: dict[str, tuple[int, str]] | None) -> list[Finding]:
    """What a running graph reports of itself: lost frames, silent cameras, a policy in error.

    ``diagnostics`` maps a component to ``(level, message)``; None where it could not be asked.
    """
    if diagnostics is None:
        return []
    if not diagnostics:
        domain = os.environ.get("ROS_DOMAIN_ID", "0")
        text = f"none answers under /{namespace} on ROS_DOMAIN_ID {domain}"
        return [Finding("running graph", "note", text, "start one, then ask again for its cameras")]
    levels = ("ok", "note", "fault")
    found = []
    for name, (level, message) in sorted(diagnostics.items()):
        advice = re.search("`(export [^`]*)`", message)
        fix = f"in the camera driver's shell: {advice[1]}" if advice else ""
        found.append(Finding(f"running {name}", levels[min(level, 2)], message, fix))
    return found


def _has(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def _module(name: str, what: str, fix: str) -> Finding:
    ok = _has(name)
    return Finding(what, "ok" if ok else "missing", name, "" if ok else fix)


def _optional(name: str, what: str, note: str) -> Finding:
    ok = _has(name)
    return Finding(
        what, "ok" if ok else "note", name if ok else "not installed", "" if ok else note
    )


def _library(name: str, fix: str) -> Finding:
    path = ctypes.util.find_library(name)
    return Finding(name, "ok" if path else "missing", path or "not found", "" if path else fix)


def _shared_memory() -> Finding:
    try:
        free = shutil.disk_usage("/dev/shm").free // 2**20
    except OSError:
        return Finding("/dev/shm", "missing", "not mounted", "mount -t tmpfs shm /dev/shm")
    level = "ok" if free >= 256 else "note"
    fix = "" if free >= 256 else "mount -o remount,size=512M /dev/shm (images travel through it)"
    return Finding("/dev/shm", level, f"{free} MiB free", fix)


def _real_time() -> Finding:
    """Whether this user may run the executor's loop under SCHED_FIFO (rt_priority:=50)."""
    _, most = resource.getrlimit(resource.RLIMIT_RTPRIO)
    if os.geteuid() == 0 or most == resource.RLIM_INFINITY or most >= RT_PRIORITY:
        return Finding("SCHED_FIFO", "ok", f"allowed; bring-up uses {RT_PRIORITY} on hardware")
    return Finding(
        "SCHED_FIFO",
        "note",
        f"priority up to {most} allowed; the control loop wants {RT_PRIORITY}",
        "as root, then log in again: groupadd -f realtime; usermod -aG realtime $USER; "
        "printf '@realtime - rtprio 98\\n@realtime - memlock unlimited\\n' "
        "> /etc/security/limits.d/99-wam_ros.conf",
    )


def report(findings: list[Finding]) -> str:
    """The findings as a table a person can read."""
    width = max(len(f.what) for f in findings)
    lines = []
    for f in findings:
        lines.append(f"  {f.level:8s}{f.what:{width}s}  {f.detail}")
        if f.fix:
            lines.append(f"  {'':8s}{'':{width}s}  -> {f.fix}")
    bad = [f"{sum(f.level == k for f in findings)} {k}" for k in BAD if _any(findings, k)]
    lines.append(f"{', '.join(bad)}: see above" if bad else "all that is needed is here")
    return "\n".join(lines)


def _any(findings: list[Finding], level: str) -> bool:
    return any(f.level == level for f in findings)


def as_json(findings: list[Finding]) -> list[dict[str, Any]]:
    """The findings as plain values."""
    return [asdict(f) for f in findings]
