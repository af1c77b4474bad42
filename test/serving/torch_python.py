"""What ``model_python`` names: a Python with torch and what serves a model, and no ROS."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import sysconfig
from pathlib import Path


def make(folder: Path) -> Path:
    """Make the environment in ``folder`` of links to this one's packages; returns its Python."""
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", "--symlinks", str(folder)], check=True
    )
    site = next(folder.glob("lib/python*/site-packages"))
    ours = Path(sysconfig.get_paths()["purelib"])
    hidden = _ros(ours) | {"wam_ros"}
    for entry in ours.iterdir():
        name = entry.name.split("-")[0]
        if name not in hidden and not entry.name.endswith(".pth") and name != "__pycache__":
            (site / entry.name).symlink_to(entry)
    return folder / "bin" / "python"


def _ros(site: Path) -> set[str]:
    """First parts of everything that a ROS wheel or this package brought."""
    found: set[str] = set()
    for distribution in importlib.metadata.distributions(path=[str(site)]):
        name = re.sub(r"[-_.]+", "_", distribution.metadata["Name"]).lower()
        if name.startswith("ros_") or name == "wam_ros" or (distribution.files is None):
            found.add(name)
            found |= {Path(f).parts[0].split("-")[0] for f in distribution.files or ()}
    return found - {".."}
