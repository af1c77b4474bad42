"""Write figures where --json asks for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def write_json(path: str | Path, value: Any) -> None:
    """Write ``value`` as indented JSON."""
    Path(path).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
