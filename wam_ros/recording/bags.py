"""Find the bags that a command was pointed at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wam_ros.recording.reader import BagError
from wam_ros.recording.recorder import DISCARDED


def find_bags(paths: Sequence[Path]) -> list[Path]:
    """Bags at or below ``paths``, by name; discarded ones are left out.

    Raises
    ------
    BagError
        A path that does not exist, or that holds no bag.
    """
    found: dict[Path, None] = {}
    for path in paths:
        if not path.exists():
            raise BagError(f"{path} does not exist")
        files = [path] if path.is_file() else sorted(path.rglob("*.mcap"))
        bags = [f.parent if (f.parent / "metadata.yaml").is_file() else f for f in files]
        bags = [b for b in bags if DISCARDED not in b.parts]
        if not bags:
            hint = (
                " (only .db3: convert with `ros2 bag convert`)" if any(path.rglob("*.db3")) else ""
            )
            raise BagError(f"{path} holds no .mcap bag{hint}")
        found.update(dict.fromkeys(b.resolve() for b in bags))
    return sorted(found, key=lambda b: (b.name, str(b)))
