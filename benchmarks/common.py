"""What every benchmark shares: arguments, machine, spread, JSON."""

from __future__ import annotations

import argparse
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from wam_ros.jsonfile import write_json


def arguments(description: str) -> argparse.ArgumentParser:
    """A parser with --json, --quick and --seed."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures to FILE")
    parser.add_argument("--quick", action="store_true", help="under a minute")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def machine() -> dict[str, str]:
    """Processor, cores, Python and the versions that matter here."""
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    found = {"cpu": model, "cores": str(os.cpu_count()), "python": platform.python_version()}
    for package in ("numpy", "ruckig", "mujoco", "ros-rclpy", "ros-fastrtps", "torch"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def spread(values: Any, scale: float = 1.0) -> dict[str, float]:
    """p50, p95, p99, p99.9 and maximum of ``values`` times ``scale``."""
    v = np.asarray(values, dtype=float) * scale
    if not len(v):
        return {"n": 0}
    q = np.percentile(v, [50, 95, 99, 99.9])
    names = ("p50", "p95", "p99", "p99.9")
    return {
        "n": len(v),
        **{n: round(float(x), 3) for n, x in zip(names, q)},
        "max": round(float(v.max()), 3),
    }


def finish(options: argparse.Namespace, result: dict[str, Any]) -> None:
    """Print the machine line and write the JSON where it was asked for."""
    result["machine"] = machine()
    print("machine: " + ", ".join(f"{k} {v}" for k, v in result["machine"].items()))
    if options.json:
        write_json(options.json, result)
