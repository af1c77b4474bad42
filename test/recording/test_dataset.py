"""From bags to a data set: read back by a loader written from the format's description."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from loader import HORIZON, Dataset, anchors_of
from synthetic import LEAD, START, Scene, grey, joint

from wam_ros.cli import main
from wam_ros.contract import load_contract

FACTS = {
    "yam": ("yam", 30, "task"),
    "agibot_g1": ("agibot", 30, "language.action_text"),
    "franka_droid": ("oxe_droid", 15, "language.language_instruction"),
}
SPEC = json.loads(Path(__file__).with_name("dreamzero_keys.json").read_text())


def convert(bags: Path, out: Path, *more: str) -> int:
    return main(["dataset", str(bags), "--out", str(out), "--jobs", "1", *more])


@pytest.fixture(scope="module", params=sorted(FACTS))
def made(request, tmp_path_factory) -> tuple[str, Path, list[Scene]]:
    folder = tmp_path_factory.mktemp(request.param)
    scenes = [
        Scene(request.param, seconds=2.6 if request.param != "franka_droid" else 4.0),
        Scene(request.param, seconds=4.0, instruction="open the drawer", verdict="failure"),
    ]
    for i, scene in enumerate(scenes):
        scene.write(folder / "bags" / f"{i}")
    # Two processes, as a person would have it; the other tests stay in one.
    assert main(["dataset", str(folder / "bags"), "--out", str(folder / "out"), "--jobs", "2"]) == 0
    return request.param, folder / "out", scenes


def test_keys_orders_and_rates_are_the_trainers(made) -> None:
    robot, out, _ = made
    tag, fps, annotation = FACTS[robot]
    data = Dataset(out)
    assert data.tag == tag and data.info["fps"] == fps
    expected = SPEC[tag]
    for kind in ("state", "action"):
        found = {k: m["end"] - m["start"] for k, m in data.modality[kind].items()}
        assert list(found.items()) == [tuple(x) for x in expected[kind]]
        starts = [m["start"] for m in data.modality[kind].values()]
        assert starts == list(np.cumsum([0, *found.values()])[:-1])
    assert list(data.modality["video"]) == expected["video"]
    assert list(data.relative) == expected["relative"]
    assert list(data.modality["annotation"]) == expected["annotation"]
    assert annotation in data.modality["annotation"]


def test_language_and_tasks(made) -> None:
    robot, out, scenes = made
    data = Dataset(out)
    annotation = FACTS[robot][2]
    for number, scene in enumerate(scenes):
        assert set(data.language(annotation, number)) == {scene.instruction}
        assert data.episodes[number]["tasks"] == [scene.instruction]
    if robot == "franka_droid":
        assert data.tasks[0] == "not provided"
        assert set(data.language("language.language_instruction_3", 0)) == {"not provided"}
    else:
        assert set(data.tasks.values()) == {s.instruction for s in scenes}


def test_rows_pair_states_commands_and_pictures_of_the_same_moment(made) -> None:
    """The scene is known in closed form: from the picture's number follows when the row is."""
    robot, out, scenes = made
    data, contract = Dataset(out), load_contract(robot)
    for number, scene in enumerate(scenes):
        pictures = data.frames(next(iter(data.modality["video"])), number)
        state = np.asarray(data.tables[number]["observation.state"])
        action = np.asarray(data.tables[number]["action"])
        rate = scene.camera_rate
        shown = [float(p.mean()) for p in pictures]
        step = rate / data.info["fps"]
        first = next(k for k in range(90) if abs(grey(0, k) - shown[0]) < 5)
        for i in range(0, len(state), 7):
            k = first + round(i * step)
            assert abs(shown[i] - grey(0, k)) < 5, (i, k)
            # The row lies between this picture and the next; states are at most one sample old.
            for column, name in enumerate(contract.state_names):
                low = k / rate - 1.0 / scene.state_rate
                times = START + np.linspace(low, (k + 1) / rate, 200)
                path = [joint(contract, name, t) for t in times]
                assert min(path) - 1e-4 <= state[i, column] <= max(path) + 1e-4
                if name in contract.control_names:
                    ahead = [joint(contract, name, t + LEAD) for t in times]
                    told = action[i, contract.action_names.index(name)]
                    assert min(ahead) - 1e-4 <= told <= max(ahead) + 1e-4


@pytest.mark.parametrize("made", ["agibot_g1"], indirect=True)  # only the G1 has a base
def test_a_base_nobody_drives_stands_still(made) -> None:
    _, out, _ = made
    assert np.all(Dataset(out).vector("action", "robot_velocity", 0) == 0.0)


def test_statistics_are_those_of_the_columns(made) -> None:
    """Computed another way: sorted values and interpolation by hand, no np.quantile."""
    _, out, _ = made
    data = Dataset(out)

    def check(values: np.ndarray, stats: dict[str, list[float]]) -> None:
        values = np.sort(values.astype(np.float64), axis=0)
        n = len(values)
        for name, q in (("q01", 0.01), ("q99", 0.99)):
            at = q * (n - 1)
            low, high = values[int(np.floor(at))], values[int(np.ceil(at))]
            expected = low + (high - low) * (at - np.floor(at))
            np.testing.assert_allclose(stats[name], expected, rtol=1e-9, atol=1e-12)
        mean = values.sum(axis=0) / n
        np.testing.assert_allclose(stats["mean"], mean, rtol=1e-9, atol=1e-12)
        deviation = np.sqrt(((values - mean) ** 2).sum(axis=0) / n)
        np.testing.assert_allclose(stats["std"], deviation, rtol=1e-9, atol=1e-12)
        assert stats["min"] == values[0].tolist() and stats["max"] == values[-1].tolist()

    for column in ("observation.state", "action"):
        check(np.concatenate([np.asarray(t[column]) for t in data.tables]), data.stats[column])
    for key, stats in data.relative.items():
        parts = []
        for number in range(len(data.tables)):
            state = data.vector("state", key, number).astype(np.float64)
            action = data.vector("action", key, number).astype(np.float64)
            for i in range(len(state) - HORIZON):
                parts.extend(action[i + j] - state[i] for j in range(HORIZON))
        check(np.asarray(parts), stats)


def test_training_windows_come_out(made) -> None:
    robot, out, _ = made
    data = Dataset(out)
    relative = list(data.relative)
    window = data.window(1, 10, FACTS[robot][2], relative)
    assert window is not None
    assert len(window.frames) == 8 * len(window.anchors) + 1
    assert window.states.shape == (len(window.anchors), len(load_contract(robot).state_names))
    assert window.actions.shape[1:] == (24, len(load_contract(robot).action_names))
    assert max(window.frames) < data.episodes[1]["length"]


def test_the_loaders_windows_are_the_references() -> None:
    """The loader draws the same windows as the reference implementation."""
    golden = Path(__file__).resolve().parent.parent / "data" / "golden"
    cases = json.loads((golden / "sampling.json").read_text())["cases"]
    for case in cases:
        n = case["length"]
        split = case["language"] == "split"
        languages = [1 if not split or i < n // 2 else 2 for i in range(n)]
        found = anchors_of(case["index"], languages, case["max_chunk_size"])
        if not case["video_indices"]:
            assert found == []
            continue
        assert [case["video_indices"][8 * b] for b in range(case["num_chunks"])] == found, case


def test_a_second_run_takes_what_is_done_and_adds_what_is_new(tmp_path: Path) -> None:
    Scene(seconds=1.5).write(tmp_path / "bags" / "a")
    assert convert(tmp_path / "bags", tmp_path / "out") == 0
    done = next((tmp_path / "out" / ".episodes").glob("*/episode.json"))
    before = done.stat().st_mtime_ns
    Scene(seconds=1.5, instruction="close it").write(tmp_path / "bags" / "b")
    # An episode that was interrupted half-way has no episode.json and is done again.
    (tmp_path / "out" / ".episodes" / "half").mkdir()
    assert convert(tmp_path / "bags", tmp_path / "out") == 0
    assert done.stat().st_mtime_ns == before
    assert len(Dataset(tmp_path / "out").episodes) == 2
    assert not (tmp_path / "out" / ".episodes" / "half").exists()


def test_a_foreign_folder_is_left_alone(tmp_path: Path, capsys) -> None:
    Scene(seconds=1.0).write(tmp_path / "bags" / "a")
    (tmp_path / "thesis.txt").write_text("precious")
    assert convert(tmp_path / "bags", tmp_path) == 1
    assert "not a data set of wam_ros" in capsys.readouterr().err
    assert (tmp_path / "thesis.txt").exists()


def test_robots_do_not_mix(tmp_path: Path, capsys) -> None:
    Scene("yam", seconds=1.5).write(tmp_path / "bags" / "a")
    Scene("franka_droid", seconds=2.5).write(tmp_path / "bags" / "b")
    assert convert(tmp_path / "bags", tmp_path / "out") == 1
    assert "one data set per robot" in capsys.readouterr().err
