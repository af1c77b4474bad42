"""Reading datasets: what a file says reaches the trainer, and what is wrong is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from wam_ros.training.gear import GearDataset, GearError

from .conftest import TASKS, WIDTH

SIZE = (96, 160)


def test_episodes_hold_rows_pictures_and_sentences(dataset: GearDataset, tmp_path: Path) -> None:
    episodes = dataset.load(SIZE, tmp_path)
    assert len(episodes) == 4
    e = episodes[1]
    assert e.state.shape == e.action.shape == (90, 20)
    assert e.frames.shape == (30, *SIZE, 3)
    assert (e.text[0], e.text[-1]) == (TASKS[1], TASKS[0])
    assert e.segments() == [(0, 45), (45, 90)]
    np.testing.assert_allclose(e.action[:-1], e.state[1:])


def test_frame_n_is_row_3n(dataset: GearDataset, tmp_path: Path) -> None:
    # The square moves one pixel in two rows; in the head's view (top left) it is 2.5 times larger.
    e = dataset.load(SIZE, tmp_path)[0]
    red = e.frames[:, :48, :80, 0].astype(int) - e.frames[:, :48, :80, 2]
    columns = np.array(
        [np.average(np.arange(80), weights=r.clip(40).sum(0) - 48 * 40) for r in red]
    )
    rows = np.arange(30) * 3
    expected = (4 + rows // 2 + 5.0 - 0.025 * WIDTH) * 80 / (0.95 * WIDTH)
    assert np.abs(columns - expected).max() < 2.0


def test_the_cache_is_used_again(dataset: GearDataset, tmp_path: Path) -> None:
    dataset.load(SIZE, tmp_path)
    before = {f: f.stat().st_mtime_ns for f in tmp_path.iterdir()}
    dataset.load(SIZE, tmp_path)
    assert {f: f.stat().st_mtime_ns for f in tmp_path.iterdir()} == before


def test_processes_give_the_same(dataset: GearDataset, tmp_path: Path) -> None:
    one = dataset.load(SIZE, tmp_path / "one")
    two = dataset.load(SIZE, tmp_path / "two", jobs=2)
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a.frames, b.frames)


@pytest.mark.parametrize("name", ["info.json", "modality.json", "stats.json", "tasks.jsonl"])
def test_a_missing_file_is_named(dataset: GearDataset, tmp_path: Path, name: str) -> None:
    copy = shutil.copytree(dataset.folder, tmp_path / "copy")
    (copy / "meta" / name).unlink()
    with pytest.raises(GearError, match=name):
        GearDataset.open(copy)


def test_rows_that_disagree_with_the_list_of_episodes(dataset: GearDataset, tmp_path: Path) -> None:
    copy = shutil.copytree(dataset.folder, tmp_path / "copy")
    file = copy / "meta" / "episodes.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    lines[2]["length"] = 80
    file.write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(GearError, match=r"episode_000002\.parquet has 90 rows.*80"):
        GearDataset.open(copy).load(SIZE, tmp_path / "cache")


def test_a_video_that_is_too_short(dataset: GearDataset, tmp_path: Path) -> None:
    copy = shutil.copytree(dataset.folder, tmp_path / "copy")
    file = copy / "meta" / "episodes.jsonl"
    file.write_text(file.read_text().replace('"length": 90', '"length": 120'))
    with pytest.raises(GearError, match=r"mp4 has 90 frames for 120 rows"):
        GearDataset.open(copy).load(SIZE, tmp_path / "cache")


def test_numbers_are_undone_by_the_policy_side(dataset: GearDataset, tmp_path: Path) -> None:
    from wam_ros.wam.actions import chunk, split_actions, to_absolute

    numbers = dataset.numbers(64, 32)
    e = dataset.load(SIZE, tmp_path)[0]
    normalised = numbers.actions(e.action[10:34], e.state[10])
    assert normalised.shape == (24, 32)
    statistics = dataset.metadata.action_statistics
    raw = split_actions(normalised[None], numbers.action_keys, statistics)
    state = {k: e.state[10:11, a:b] for k, (a, b) in _slices(dataset).items()}
    absolute = chunk(to_absolute(raw, state, numbers.relative), numbers.action_keys)
    # Values beyond the 1 % and 99 % quantiles are clipped in training, as in the reference.
    inside = np.abs(normalised[:, :20]) < 1
    assert np.abs(absolute - e.action[10:34])[inside].max() < 1e-5


def _slices(dataset: GearDataset) -> dict[str, tuple[int, int]]:
    return {k: (v["start"], v["end"]) for k, v in dataset.modality["state"].items()}


def test_excluded_rows_are_read(dataset: GearDataset, tmp_path: Path) -> None:
    copy = shutil.copytree(dataset.folder, tmp_path / "copy")
    line = json.dumps({"episode_index": 1, "step_indices": [4, 5, 6]})
    (copy / "meta" / "step_filter.jsonl").write_text(line + "\n")
    episodes = GearDataset.open(copy).load(SIZE, tmp_path / "cache")
    assert [sorted(e.excluded) for e in episodes] == [[], [4, 5, 6], [], []]


def test_a_copy_has_the_same_fingerprint_and_other_rows_another(
    dataset: GearDataset, tmp_path: Path
) -> None:
    copy = shutil.copytree(dataset.folder, tmp_path / "copy")
    assert GearDataset.open(copy).fingerprint() == dataset.fingerprint()
    files = sorted(copy.rglob("*.parquet"))
    shutil.copy(files[1], files[0])
    assert GearDataset.open(copy).fingerprint() != dataset.fingerprint()


def _emptied(copy: Path) -> None:
    (copy / "meta" / "episodes.jsonl").write_text("")


def _without_sentences(copy: Path) -> None:
    file = copy / "meta" / "modality.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "annotation": {}}))


def _without_tasks(copy: Path) -> None:
    file = copy / "meta" / "tasks.jsonl"
    file.write_text(file.read_text().splitlines()[0] + "\n")


def _with_a_broken_table(copy: Path) -> None:
    sorted(copy.rglob("*.parquet"))[0].write_bytes(b"not parquet")


def _with_a_broken_video(copy: Path) -> None:
    sorted(copy.rglob("*.mp4"))[0].write_bytes(b"not a video")


def _with_nan(copy: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = sorted(copy.rglob("*.parquet"))[0]
    table = pq.read_table(file)
    action = np.stack(table["action"].to_numpy()).copy()
    action[7, 3] = np.nan
    at = table.column_names.index("action")
    column = pa.array(list(action), table.schema.field("action").type)
    pq.write_table(table.set_column(at, table.schema.field("action"), column), file)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_emptied, "lists no episode"),
        (_without_sentences, "no annotation names the column"),
        (_without_tasks, "1 is missing, as a column or as an entry of tasks.jsonl"),
        (_with_a_broken_table, "000000.parquet cannot be read"),
        (_with_a_broken_video, "000000.mp4 cannot be read"),
        (_with_nan, "action of row 7 is not a number"),
    ],
)
def test_what_cannot_be_read_is_named(
    dataset: GearDataset, tmp_path: Path, change: Callable[[Path], None], said: str
) -> None:
    copy = shutil.copytree(dataset.folder, tmp_path / "copy")
    change(copy)
    with pytest.raises(GearError, match=said):
        GearDataset.open(copy).load(SIZE, tmp_path / "cache")
