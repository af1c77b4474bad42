"""No call hands the kernel so much that a control loop would have to wait for it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from wam_ros.recording import bag as module
from wam_ros.recording.bag import BagWriter, SmallWrites
from wam_ros.recording.episode import Episode


def test_everything_arrives_in_small_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = np.random.default_rng(0).bytes(1_000_003)
    file = SmallWrites(tmp_path / "f")
    sizes = []
    raw = file.raw
    watched = type("Watched", (), {"write": lambda _, b: sizes.append(len(b)) or raw.write(b)})()
    monkeypatch.setattr(file, "_file", _Buffered(watched))
    assert file.write(data[:10]) == 10
    assert file.write(memoryview(data)[10:]) == len(data) - 10
    file.flush()
    assert max(sizes) <= module._PIECE
    raw.close()
    assert (tmp_path / "f").read_bytes() == data


class _Buffered:
    """Hands every piece on as it comes."""

    def __init__(self, raw: object) -> None:
        self._raw = raw

    def write(self, piece: bytes) -> int:
        return self._raw.write(piece)  # type: ignore[attr-defined, no-any-return]

    def flush(self) -> None:
        pass


def test_a_bag_is_written_through_it(tmp_path: Path) -> None:
    made = BagWriter(tmp_path / "b", Episode("yam", "contract", "touch the red block"))
    assert isinstance(made._file, SmallWrites)
    assert os.fstat(made._file.fileno()).st_size > 0
    made.close("success")
