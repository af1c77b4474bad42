"""Write figures where --json asks for them."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any


def write_json(path: str | Path, value: Any) -> None:
    """Write ``value`` as indented JSON; what is not a finite number becomes null.

    Folders that are missing are made.
    """
    text = json.dumps(_strict(value), indent=2, allow_nan=False)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text + "\n", encoding="utf-8")


def can_be_written(path: str | Path) -> None:
    """Look whether a file, and the folders it is to lie in, can be made after long work.

    Raises
    ------
    OSError
        They cannot; names the path.
    """
    path = Path(path).absolute()
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name a file in it")
    there = next(p for p in (path, *path.parents) if p.exists())
    if there != path and not there.is_dir():
        raise NotADirectoryError(f"{path} cannot be written: {there} is no folder")
    if not os.access(there, os.W_OK):
        raise PermissionError(f"{path} cannot be written: no permission in {there}")


def _strict(value: Any) -> Any:
    """JSON has no NaN, and other languages' readers refuse Python's."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {k: _strict(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(v) for v in value]
    return value
