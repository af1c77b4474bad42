"""The model in a Python of its own: `wam serve` as a process of the graph.

A robot's ROS uses the system's Python, where torch often is not; ``model_python:=`` names one that
has it. That environment needs torch and this package's pure dependencies, but neither ROS nor this
package itself: it is lent ours, and nothing else of our environment.
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

LOADING = 900.0
"""Seconds that the policy node waits for a model to load; 14B from a slow disk take minutes."""


def free_port() -> int:
    """A TCP port on the loopback interface that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def command(
    python: str, robot: str, port: int, values: Mapping[str, str], names: Sequence[str]
) -> tuple[str, ...]:
    """Command line of the server; ``values`` of ``names`` become its options where set."""
    line = [python, "-m", "wam_ros.serving.cli", "serve", robot, "--policy", "wam"]
    line += ["--port", str(port), "--call-timeout", "300"]
    for name in names:
        if values[name]:
            line += ["--option", f"{name}={values[name]}"]
    return tuple(line)


def environment() -> dict[str, str]:
    """Variables for that Python: it sees this package, and none of the packages beside it.

    ``python -m`` looks into the working directory first, where another checkout of this package may
    be; PYTHONSAFEPATH forbids that from Python 3.11 on.
    """
    return {"PYTHONPATH": str(lend()), "LD_LIBRARY_PATH": "", "PYTHONSAFEPATH": "1"}


_PROBE = """
import importlib.util as u, sys
if sys.version_info < (3, 10):
    sys.exit(f"it is Python {sys.version.split()[0]}, 3.10 or newer is needed")
needed = ("torch", "diffusers", "safetensors", "msgpack", "websockets")
missing = [n for n in needed if u.find_spec(n) is None]
if missing:
    sys.exit("it has no " + ", ".join(missing))
import wam_ros.serving.cli
"""


def unfit(python: str) -> str:
    """Why the model cannot run in ``python``, or an empty string; takes about a second."""
    try:
        found = subprocess.run(
            [python, "-c", _PROBE],
            env={**os.environ, **environment()},
            capture_output=True,
            text=True,
            timeout=60.0,
        )
    except (OSError, subprocess.TimeoutExpired) as err:
        return str(err)
    said = found.stderr.strip().splitlines()
    return "" if found.returncode == 0 else (said[-1] if said else f"it ends {found.returncode}")


def lend(root: Path | None = None) -> Path:
    """A folder that holds nothing but a link to this package; made under ``root``.

    The default is ``$XDG_CACHE_HOME/wam_ros/python``.
    """
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    folder = root or Path(cache) / "wam_ros" / "python"
    folder.mkdir(parents=True, exist_ok=True)
    package = Path(__file__).resolve().parent
    link = folder / package.name
    if not link.is_symlink() or link.resolve() != package:
        # Made aside and moved into place, so that two bring-ups at once do no harm.
        fresh = folder / f".{package.name}.{os.getpid()}"
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(package)
        fresh.replace(link)
    return folder
