"""Print what pyproject.toml requires: the build system, the package and the named extras.

Usage: ``python scripts/requirements.py [--extras-only] dev,sim``
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any


def load(path: Path) -> dict[str, Any]:
    """Read a TOML file with the standard library, or on Python 3.10 with the parser pip brings."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        from pip._vendor import tomli as tomllib
    return tomllib.loads(path.read_text(encoding="utf-8"))


def requirements(project: dict[str, Any], extras: list[str], alone: bool) -> list[str]:
    """Return requirement lines, those of the extras ``alone`` or all.

    Raises SystemExit naming an extra that does not exist.
    """
    lines = [*project["build-system"]["requires"], *project["project"]["dependencies"]]
    if alone:
        lines = []
    known = project["project"]["optional-dependencies"]
    for extra in extras:
        if extra not in known:
            raise SystemExit(f"no extra named {extra!r} in pyproject.toml; it has {sorted(known)}")
        lines += known[extra]
    return lines


if __name__ == "__main__":
    root = Path(__file__).resolve().parent.parent
    arguments = [a for a in sys.argv[1:] if a != "--extras-only"]
    names = [name for name in (arguments[0] if arguments else "").split(",") if name]
    alone = "--extras-only" in sys.argv
    print("\n".join(requirements(load(root / "pyproject.toml"), names, alone)))
