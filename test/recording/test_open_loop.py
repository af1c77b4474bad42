"""Recorded observations through a backend: when it is asked, what it is shown, how it is scored."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic import START, Scene, joint

from wam_ros.cli import main
from wam_ros.contract.data import ActionChunk
from wam_ros.policy.base import PolicyError, Window
from wam_ros.policy.open_loop import Cadence, play, stacked
from wam_ros.policy.open_loop_figures import MOVED, ranges, summarise
from wam_ros.recording.playback import Playback

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Scene("franka_droid", seconds=6.0).write(tmp_path_factory.mktemp("bags") / "droid")


@pytest.fixture(scope="module")
def recorded(bag: Path) -> Playback:
    return Playback(bag)


class Foresight:
    """Knows the recording, and is wrong by ``offset`` (D,) times the row of the chunk."""

    name = model = "foresight"
    precision = ""
    needs_objects = False
    frame_rows = (-6, -3, 0)

    def __init__(self, recorded: Playback, offset: Any = 0.0, order: Any = None) -> None:
        self.contract, self.rows = recorded.contract, recorded.rows
        self.offset, self.order = offset, order
        self.windows: list[Window] = []
        self.instructions: list[str] = []

    def reset(self, instruction: str) -> None:
        self.instructions.append(instruction)

    def infer(self, window: Window) -> ActionChunk:
        self.windows.append(window)
        rates = self.contract.rates
        k = round((window.newest.t0 - self.rows.t[0]) / rates.step_period)
        at = np.clip(k + np.arange(rates.horizon), 0, len(self.rows.t) - 1)
        actions = self.rows.action[at] + np.outer(np.arange(rates.horizon), self.offset)
        order = self.order or list(range(actions.shape[1]))
        names, kinds = self.contract.action_names, self.contract.action_kinds
        return ActionChunk(
            window.newest.t0, rates.step_period, actions[:, order],
            tuple(names[i] for i in order), tuple(kinds[i] for i in order),
        )  # fmt: skip


@pytest.mark.parametrize(
    ("cadence", "stride"),
    [(Cadence("sync"), 24), (Cadence("async", latency=0.2), 21), (Cadence("sliding", 0, 0.143), 2)],
)
def test_calls_come_at_the_recorded_times_of_their_cadence(
    recorded: Playback, cadence: Cadence, stride: int
) -> None:
    policy = Foresight(recorded, np.zeros(8))
    calls = play(recorded, policy, cadence)
    assert calls.rows == list(range(0, len(recorded.rows.t), stride))
    t = recorded.rows.t
    for window, k in zip(policy.windows, calls.rows):
        if k >= 6:
            assert [f.t0 for f in window.frames] == [t[k - 6], t[k - 3], t[k]]
        assert window.cadence == cadence.name
        assert np.array_equal(window.newest.state, recorded.rows.state[k])
        assert window.newest.views.keys() == {c.name for c in recorded.contract.cameras}
    assert [w.executed_rows for w in policy.windows] == [0.0] + [float(stride)] * (
        len(calls.rows) - 1
    )
    assert policy.instructions == ["fold the towel"]


def test_a_perfect_prediction_has_no_error_and_rows_beyond_the_end_do_not_count(
    recorded: Playback,
) -> None:
    calls = play(recorded, Foresight(recorded, np.zeros(8)), Cadence())
    error = stacked([calls])["policy"]
    assert np.nanmax(np.abs(error)) == 0.0
    left = len(recorded.rows.t) - calls.rows[-1]
    assert np.isnan(error[-1, left:]).all() and np.isfinite(error[-1, :left]).all()


def test_errors_are_those_that_were_put_in(recorded: Playback) -> None:
    offset = np.array([0.01, -0.02, 0.0, 0.0, 0.0, 0.0, 0.03, 0.005])
    order = [7, *range(7)]  # a backend may name its columns in another order
    calls = [play(recorded, Foresight(recorded, offset, order), Cadence())]
    found = summarise(recorded.contract, calls)["rows"]["policy"]
    rows, names = np.arange(24), recorded.contract.action_names
    # Each row counts as often as it lies within the recording.
    count = np.array([sum(k + i < len(recorded.rows.t) for k in calls[0].rows) for i in rows])
    spread = ranges(calls)
    for i, name in enumerate(names):
        size = np.abs(offset[i]) * rows
        joint = found["joints"][name]
        assert joint["mae"] == pytest.approx((size * count).sum() / count.sum(), abs=1e-12)
        assert joint["rmse"] == pytest.approx(np.sqrt((size**2 * count).sum() / count.sum()))
        assert joint["max"] == pytest.approx(abs(offset[i]) * 23)
        assert joint["normalised"] == pytest.approx(joint["mae"] / spread[i])
    growth = np.array(found["horizon"])
    np.testing.assert_allclose(growth, rows * np.mean(np.abs(offset) / spread), atol=1e-12)
    keys = found["keys"]
    of_joints = [found["joints"][n]["mae"] for n in names[:7]]
    assert keys["joint_position"]["mae"] == pytest.approx(np.mean(of_joints))
    low, high = np.quantile(recorded.rows.action, [0.01, 0.99], axis=0)
    np.testing.assert_allclose(spread, high - low)


def test_baselines_are_what_they_say(recorded: Playback) -> None:
    calls = play(recorded, Foresight(recorded, np.zeros(8)), Cadence())
    found, rows = stacked([calls]), recorded.rows
    columns = [recorded.contract.state_names.index(n) for n in recorded.contract.action_names]
    state = rows.state[:, columns]
    for i, k in enumerate(calls.rows[:-1]):
        wanted = rows.action[k : k + 24]
        np.testing.assert_allclose(found["hold the state"][i], state[k] - wanted)
        np.testing.assert_allclose(found["recorded states"][i], state[k : k + 24] - wanted)
        np.testing.assert_allclose(
            found["hold the command"][i], rows.action[max(k - 1, 0)] - wanted
        )


def test_joints_that_stood_still_are_named_and_left_out(recorded: Playback) -> None:
    recorded.rows.action[:, 7] += 1.0 - recorded.rows.action[:, 7]
    try:
        found = summarise(
            recorded.contract, [play(recorded, Foresight(recorded, np.ones(8)), Cadence())]
        )
    finally:
        recorded.rows.action[:] = Playback(recorded._bag).rows.action
    assert found["still"] == [recorded.contract.action_names[7]]
    assert found["range"][found["still"][0]] < MOVED
    assert found["rows"]["policy"]["joints"][found["still"][0]]["normalised"] is None


def test_a_changed_instruction_reaches_the_backend_at_the_next_call(tmp_path: Path) -> None:
    scene = Scene("franka_droid", seconds=5.0, say=[(2.0, "open the drawer")])
    later = Playback(scene.write(tmp_path / "bag"))
    policy = Foresight(later, np.zeros(8))
    play(later, policy, Cadence())
    assert policy.instructions == ["fold the towel", "open the drawer"]
    again = Foresight(later, np.zeros(8))
    play(later, again, Cadence(), task="wave")
    assert again.instructions == ["wave"]


def test_a_rest_is_told_from_motion(tmp_path: Path) -> None:
    """The arm moves in the first second only: the other calls do not count as moving."""

    def motion(contract: Any, name: str, t: float) -> float:
        return joint(contract, name, min(t, START + 1.0))

    moved = Playback(Scene("franka_droid", seconds=8.0, motion=motion).write(tmp_path / "bag"))
    found = summarise(moved.contract, [play(moved, Foresight(moved, np.zeros(8)), Cadence())])
    assert 0 < found["moving_calls"] < found["calls"]
    held = found["rows"]["hold the state"]["all"]
    assert held["moving"] > 2 * held["normalised"] > 0


def test_what_cannot_be_played_is_named(recorded: Playback) -> None:
    with pytest.raises(PolicyError, match=r"latency of 5 s is as long as a chunk of 1\.6 s"):
        play(recorded, Foresight(recorded), Cadence("async", latency=5.0))

    class Broken(Foresight):
        def infer(self, window: Window) -> ActionChunk:
            raise PolicyError("model: out of GPU memory")

    with pytest.raises(PolicyError, match=r"b, row 0 \(0\.00 s\): model: out of GPU memory"):
        play(recorded, Broken(recorded, np.zeros(8)), Cadence(), "b")


# ---- the command ------------------------------------------------------------------------------


def test_replaying_what_was_recorded_has_no_error(
    bag: Path, recorded: Playback, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, figures, plot = tmp_path / "run.npz", tmp_path / "out.json", tmp_path / "out.png"
    contract = recorded.contract
    np.savez(
        source, actions=recorded.rows.action, names=np.array(contract.action_names),
        step_period=contract.rates.step_period,
    )  # fmt: skip
    line = ["open-loop", str(bag), "--policy", "replay", "--option", f"replay_file={source}"]
    assert main([*line, "--json", str(figures), "--plot", str(plot)]) == 0
    found = json.loads(figures.read_text())
    assert found["rows"]["policy"]["all"]["normalised"] == 0.0
    assert found["rows"]["hold the state"]["all"]["normalised"] > 0.01
    assert "NaN" not in figures.read_text()
    assert plot.read_bytes()[:4] == b"\x89PNG"
    assert "policy 0.0 % of the joints' range" in capsys.readouterr().out


def test_two_recordings_are_joined_and_drawn(bag: Path, tmp_path: Path) -> None:
    other = Scene("franka_droid", seconds=4.0, instruction="wave").write(tmp_path / "bag")
    figures, plot = tmp_path / "out.json", tmp_path / "out.svg"
    line = ["open-loop", str(bag), str(other), "--policy", "hold", "--cadence", "async"]
    assert main([*line, "--json", str(figures), "--plot", str(plot)]) == 0
    found = json.loads(figures.read_text())
    assert {b["instruction"] for b in found["bags"]} == {"fold the towel", "wave"}
    assert found["calls"] == sum(b["calls"] for b in found["bags"])
    rows = found["rows"]
    assert rows["policy"]["keys"] == rows["hold the state"]["keys"], "hold is that baseline"
    assert plot.read_text().lstrip().startswith("<?xml")


def test_it_runs_where_ros_cannot_be_imported(bag: Path) -> None:
    code = (
        "import sys; sys.modules['rclpy'] = None; from wam_ros.cli import main; "
        f"sys.exit(main(['open-loop', {str(bag)!r}, '--policy', 'hold']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "joint_position" in done.stdout


def test_wrong_usage_is_named(
    bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    yam = Scene("yam", seconds=2.0).write(tmp_path / "yam")
    nobody = Scene("franka_droid", seconds=3.0, instruction="").write(tmp_path / "nobody")
    cases = [
        (["/no/such"], [], 1, "/no/such does not exist"),
        ([tmp_path / "empty"], [], 1, "holds no .mcap bag"),
        ([bag, yam], [], 1, "was recorded on yam"),
        ([nobody], [], 1, "give one with --task"),
        ([bag], ["--policy", "scripted"], 1, "true object poses"),
        ([bag], ["--policy", "crystal_ball"], 2, "is not one of scripted"),
        ([bag], ["--policy", "wam"], 1, "checkpoint:=FOLDER"),
        ([bag], ["--policy", "wam_serve"], 1, "server:="),
        ([bag], ["--plot", "x.txt"], 2, "name it .png"),
        ([bag], ["--option", "x"], 2, "write NAME=VALUE"),
        ([bag], ["--cadence", "async", "--latency", "9"], 1, "latency of 9 s"),
    ]
    for bags, more, code, words in cases:
        given = [str(b) for b in bags]
        policy = [] if "--policy" in more else ["--policy", "hold"]
        assert main(["open-loop", *given, *policy, *more]) == code, more
        assert words in capsys.readouterr().err, more
