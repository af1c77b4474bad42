"""Files that --json writes are JSON for everybody."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from wam_ros.jsonfile import can_be_written, write_json


def test_what_is_no_number_becomes_null(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    write_json(file, {"a": math.nan, "b": [1.5, math.inf, {"c": (2, -math.inf)}], "d": "NaN"})

    def refuse(text: str) -> None:
        raise AssertionError(text)

    read = json.loads(file.read_text(), parse_constant=refuse)
    assert read == {"a": None, "b": [1.5, None, {"c": [2, None]}], "d": "NaN"}


def test_where_nothing_can_be_written_is_said_before_the_work(tmp_path: Path) -> None:
    can_be_written(tmp_path / "a" / "b" / "figures.json")
    assert not (tmp_path / "a").exists(), "nothing is made before there is something to write"
    write_json(tmp_path / "a" / "b" / "figures.json", {})
    with pytest.raises(IsADirectoryError, match="is a folder"):
        can_be_written(tmp_path / "a")
    with pytest.raises(OSError, match=r"figures.json/x.json cannot be written"):
        can_be_written(tmp_path / "a" / "b" / "figures.json" / "x.json")
