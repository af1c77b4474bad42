"""The released converter's output, reproduced from the same input."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wam_ros.recording.gear import DatasetError, write_gear_metadata
from wam_ros.recording.statistics import relative

GOLDEN = Path(__file__).resolve().parent.parent / "data" / "golden" / "gear_dataset"


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    shutil.copytree(GOLDEN / "input", tmp_path / "set")
    return tmp_path / "set"


def run(root: Path, **changed: Any) -> None:
    a = {**json.loads((GOLDEN / "arguments.json").read_text()), **changed}
    write_gear_metadata(
        root,
        a["embodiment_tag"],
        {k: tuple(v) for k, v in a["state_keys"].items()},
        {k: tuple(v) for k, v in a["action_keys"].items()},
        a["relative_action_keys"],
        horizon=a["action_horizon"],
    )


def same(found: Any, expected: Any, where: str) -> None:
    if isinstance(expected, dict):
        assert list(found) == list(expected), where
        for k in expected:
            same(found[k], expected[k], f"{where}.{k}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for i, (f, e) in enumerate(zip(found, expected)):
            same(f, e, f"{where}[{i}]")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-12, abs=1e-15), where
    else:
        assert found == expected, where


@pytest.mark.parametrize("name", sorted(p.name for p in (GOLDEN / "expected_meta").iterdir()))
def test_the_converters_files_are_reproduced(copied: Path, name: str) -> None:
    run(copied)
    expected = (GOLDEN / "expected_meta" / name).read_text()
    found = (copied / "meta" / name).read_text()
    if name.endswith(".jsonl"):
        read = [[json.loads(x) for x in text.splitlines()] for text in (found, expected)]
        same(read[0], read[1], name)
    else:
        same(json.loads(found), json.loads(expected), name)


def test_the_trainers_metadata_follows(copied: Path) -> None:
    """Per key slices of stats.json, and the relative statistics, are what the trainer stores."""
    run(copied)
    meta = {p.name: json.loads(p.read_text()) for p in (copied / "meta").glob("*.json")}
    tag = meta["embodiment.json"]["embodiment_tag"]
    expected = json.loads((GOLDEN / "expected_trainer_metadata.json").read_text())[tag]
    statistics: dict[str, Any] = {}
    for kind in ("state", "action"):
        statistics[kind] = {}
        for key, m in meta["modality.json"][kind].items():
            whole = meta["stats.json"][m["original_key"]]
            statistics[kind][key] = {
                n: whole[n][m["start"] : m["end"]]
                for n in ("max", "min", "mean", "std", "q01", "q99")
            }
    statistics["action"].update(meta["relative_stats_dreamzero.json"])
    same(statistics, expected["statistics"], "statistics")
    features = meta["info.json"]["features"]
    for short, wanted in expected["modalities"]["video"].items():
        feature = features[meta["modality.json"]["video"][short]["original_key"]]
        height, width, channels = feature["shape"]
        assert wanted == {
            "resolution": [width, height],
            "channels": channels,
            "fps": feature["video_info"]["video.fps"],
        }


def test_faults_are_named(copied: Path) -> None:
    with pytest.raises(DatasetError, match=r"state key 'joint_pos' \[0:9\] leaves"):
        run(copied, state_keys={"joint_pos": [0, 9]})
    shutil.rmtree(copied / "data")
    with pytest.raises(DatasetError, match=r"no \.parquet files"):
        run(copied)
    (copied / "meta" / "info.json").write_text("{")
    with pytest.raises(DatasetError, match="cannot be read"):
        run(copied)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.integers(1, 30), st.integers(0, 2**31))
def test_relative_windows(length: int, horizon: int, seed: int) -> None:
    """Against a plain double loop; an episode of `horizon` rows or fewer gives no window."""
    rng = np.random.default_rng(seed)
    state, action = rng.normal(size=(length, 2)), rng.normal(size=(length, 3))
    found = relative([(state, action)], ["k"], {"k": (1, 2)}, {"k": (2, 3)}, horizon)
    rows = [action[i + j, 2] - state[i, 1] for i in range(length - horizon) for j in range(horizon)]
    if not rows:
        assert found == {}
        return
    assert found["k"]["mean"][0] == pytest.approx(np.mean(rows), abs=1e-12)
    assert found["k"]["max"][0] == pytest.approx(max(rows))
