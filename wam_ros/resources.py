"""Find the files that travel with the package: contracts, URDFs, DDS profile, launch files."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def share() -> Path:
    """Return the folder that holds ``config/``, ``urdf/`` and ``launch/``.

    In a source checkout that is the checkout itself; installed, it is ``share/wam_ros`` of the
    prefix (an ament prefix, or the virtual environment).

    Raises
    ------
    FileNotFoundError
        When no candidate has the files; names the folders that were tried.
    """
    package = Path(__file__).resolve().parent
    prefixes = [Path(p) for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
    # Walking up from the module reaches the prefix of a `colcon build` and of a wheel alike.
    prefixes += [*package.parents, Path(sys.prefix)]
    candidates = [package.parent, *(p / "share" / "wam_ros" for p in prefixes)]
    for folder in candidates:
        if (folder / "config" / "robots").is_dir():
            return folder
    tried = ", ".join(str(c) for c in candidates[:4])
    raise FileNotFoundError(f"wam_ros: config/robots was not found (tried {tried}); reinstall it")


def shipped_model(robot: str) -> Path | None:
    """Folder of the small World-Action Model that comes with the package for ``robot``, if any."""
    folder = share() / "config" / "models" / robot
    return folder if (folder / "config.json").is_file() else None
