"""Write figures where --json asks for them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any


def write_json(path: str | Path, value: Any) -> None:
    """Write ``value`` as indented JSON; what is not a finite number becomes null."""
    text = json.dumps(_strict(value), indent=2, allow_nan=False)
    Path(path).write_text(text + "\n", encoding="utf-8")


def _strict(value: Any) -> Any:
    """JSON has no NaN, and other languages' readers refuse Python's."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {k: _strict(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(v) for v in value]
    return value
