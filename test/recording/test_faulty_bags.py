"""Every fault a recording can have, and what `wam dataset` does about it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from loader import Dataset
from synthetic import Scene

from wam_ros.cli import main
from wam_ros.contract import load_contract


def outcome(tmp_path: Path, *scenes: Scene, arguments: tuple[str, ...] = ()) -> list[dict]:
    for i, scene in enumerate(scenes):
        if not (tmp_path / "bags" / str(i)).exists():
            scene.write(tmp_path / "bags" / str(i))
    out = tmp_path / "out"
    main(["dataset", str(tmp_path / "bags"), "--out", str(out), "--jobs", "1", *arguments])
    return json.loads((out / "report.json").read_text())["episodes"]


def test_a_missing_camera_refuses_the_episode(tmp_path: Path, capsys) -> None:
    (found,) = outcome(tmp_path, Scene(seconds=1.5, keep=lambda n, t: n != "left"))
    assert found["refused"] == ["no usable sample from left in the whole recording"]
    assert not (tmp_path / "out" / "meta").exists()
    assert "no episode was accepted" in capsys.readouterr().err
    assert "left" in (tmp_path / "out" / "report.html").read_text()


def test_a_long_gap_refuses_and_says_where(tmp_path: Path) -> None:
    (found,) = outcome(tmp_path, Scene(keep=lambda n, t: n != "top" or not 1.0 < t < 1.8))
    (reason,) = found["refused"]
    assert reason.startswith("gap of 0.") and "no usable sample from top" in reason
    assert " at 1.1 s" in reason or " at 1.0 s" in reason


def test_a_short_gap_is_filled_and_kept_out_of_the_windows(tmp_path: Path) -> None:
    gap = Scene(seconds=4.0, keep=lambda n, t: n != "top" or not 2.0 < t < 2.2)
    (found,) = outcome(tmp_path, gap)
    assert not found["refused"]
    assert "short gap" in found["remarks"][0]
    data = Dataset(tmp_path / "out")
    bad = data.excluded[0]
    step = data.info["fps"]
    first = min(bad)
    assert first == pytest.approx(2.1 * step - 24, abs=3)  # the window that ends in the gap
    assert max(bad) == pytest.approx(2.2 * step, abs=3)
    with pytest.raises(AssertionError):
        data.window(0, first, "task", [])
    assert data.window(0, 0, "task", []) is not None


def test_late_joint_states_are_remarked(tmp_path: Path) -> None:
    """Arm states stop for 0.3 s again and again: held by policy, older than their tolerance."""
    (found,) = outcome(tmp_path, Scene(keep=lambda n, t: n != "arms" or t % 0.4 < 0.1))
    reasons = " ".join(found["refused"] + found["remarks"])
    # max_skew 80 ms withholds most such rows live, so offline they are gaps as well.
    assert "samples are" in reasons
    assert found["figures"]["sources"]["arms"]["longest_gap_s"] > 0.29


def test_messages_that_arrive_late_are_no_fault(tmp_path: Path) -> None:
    """A burst: delayed by up to half a second on the way, stamps are right."""
    burst = Scene(delay=lambda n, t: max(0.0, 1.5 - t) if n == "arms" and 1.0 < t < 1.5 else 0.0)
    (found,) = outcome(tmp_path, burst)
    assert found["refused"] == [] and found["remarks"] == []


@pytest.mark.parametrize("jump", [3.0, -3.0, 0.4])
def test_a_clock_jump_refuses(tmp_path: Path, jump: float) -> None:
    (found,) = outcome(
        tmp_path, Scene(shift=lambda n, t: jump if n == "right" and t > 1.5 else 0.0)
    )
    assert f"clock of 'right' jumped by {jump:+.2f} s against the recording's" in found["refused"]


def test_a_truncated_file_is_used_up_to_there(tmp_path: Path) -> None:
    scene = Scene(seconds=4.0, size=(160, 120))  # several chunks
    bag = scene.write(tmp_path / "bags" / "0")
    mcap = next(bag.glob("*.mcap"))
    with mcap.open("r+b") as f:
        f.truncate(int(mcap.stat().st_size * 0.6))
    (bag / "metadata.yaml").unlink()
    (found,) = outcome(tmp_path, scene)
    assert not found["refused"] and found["verdict"] == "interrupted"
    assert any("is cut" in r for r in found["remarks"])
    assert 30 < Dataset(tmp_path / "out").episodes[0]["length"] < 110


def test_a_truncated_file_does_not_pass_for_a_success(tmp_path: Path) -> None:
    scene = Scene(seconds=4.0, size=(160, 120))
    bag = scene.write(tmp_path / "bags" / "0")
    mcap = next(bag.glob("*.mcap"))
    with mcap.open("r+b") as f:
        f.truncate(int(mcap.stat().st_size * 0.6))
    (bag / "metadata.yaml").unlink()
    (found,) = outcome(tmp_path, scene, arguments=("--only", "success"))
    assert found["refused"] == ["verdict is 'interrupted', asked for: success"]


def test_rubbish_is_refused_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "bags" / "0"
    folder.mkdir(parents=True)
    (folder / "x_0.mcap").write_bytes(b"this is no mcap file at all")
    (found,) = outcome(tmp_path)
    assert len(found["refused"]) == 1 and "x_0.mcap is no MCAP file" in found["refused"][0]


def test_two_instructions_split_the_windows_not_the_episode(tmp_path: Path) -> None:
    (found,) = outcome(tmp_path, Scene(seconds=4.0, say=[(2.0, "now open it")]))
    assert found["remarks"] == ["2 instructions: 'fold the towel', 'now open it'"]
    data = Dataset(tmp_path / "out")
    texts = data.language("task", 0)
    change = texts.index("now open it")
    assert change == pytest.approx(60, abs=2)
    assert texts == ["fold the towel"] * change + ["now open it"] * (len(texts) - change)
    assert data.episodes[0]["tasks"] == ["fold the towel", "now open it"]
    window = data.window(0, change - 30, "task", [])
    assert window is not None and max(window.anchors) < change


def test_no_instruction(tmp_path: Path) -> None:
    (found,) = outcome(tmp_path, Scene(seconds=1.5, instruction=""))
    assert found["refused"] == ["no instruction; give one with --task"]
    (found,) = outcome(tmp_path, arguments=("--task", "fold it"))
    assert not found["refused"]
    assert Dataset(tmp_path / "out").tasks == {0: "fold it"}


def test_too_short_for_a_window(tmp_path: Path) -> None:
    (found,) = outcome(tmp_path, Scene(seconds=0.6))
    assert "a training window needs 25" in found["refused"][0]


def test_only_success(tmp_path: Path) -> None:
    scenes = [Scene(seconds=1.5, verdict=v) for v in ("success", "failure", "none")]
    found = outcome(tmp_path, *scenes, arguments=("--only", "success"))
    assert [bool(f["refused"]) for f in found] == [False, True, True]


def leader_contract(tmp_path: Path) -> str:
    """YAM with leader arms, on a topic of their own."""
    raw = yaml.safe_load(Path(load_contract("yam").path).read_text())
    raw["action_sources"] = [
        {"name": "leader", "topic": "/leader/joint_states", "type": "sensor_msgs/msg/JointState",
         "joints": ["left_arm"], "origin": "human", "timeout": 0.2}
    ]  # fmt: skip
    path = tmp_path / "yam.yaml"
    path.write_text(yaml.safe_dump(raw))
    return str(path)


def leader(t0: float, t1: float) -> list:
    from sensor_msgs.msg import JointState
    from synthetic import START

    from wam_ros.nodes.convert import to_stamp

    names = [j.name for j in load_contract("yam").group("left_arm").joints]
    out = []
    for k in range(round((t1 - t0) * 50)):
        message = JointState(name=names, position=[0.25] * 6)
        message.header.stamp = to_stamp(START + t0 + k / 50)
        out.append(("/leader/joint_states", "sensor_msgs/msg/JointState", t0 + k / 50, message))
    return out


def test_only_human_takes_the_leaders_stretch(tmp_path: Path) -> None:
    """A person takes over with leader arms in the middle of what the policy does."""
    scene = Scene(
        seconds=5.0,
        contract_path=leader_contract(tmp_path),
        extra=[*leader(0.0, 0.1), *leader(2.0, 4.0)],
    )
    (found,) = outcome(tmp_path, scene, arguments=("--only", "human"))
    assert not found["refused"]
    data = Dataset(tmp_path / "out")
    origin = data.tables[0]["action_origin"]
    human = [i for i, o in enumerate(origin) if o == "human"]
    middle = [i for i in human if i > 20]
    assert middle == list(range(middle[0], middle[-1] + 1))
    assert len(middle) == pytest.approx(66, abs=4)  # 2.0 s and the timeout
    assert data.vector("action", "left_joint_pos", 0)[middle[5]].tolist() == [0.25] * 6
    anchors = [i for i in range(len(origin) - 24) if i not in data.excluded[0]]
    assert anchors and all(origin[i + k] == "human" for i in anchors for k in range(25))


def test_rows_from_before_a_person_took_over_stay(tmp_path: Path) -> None:
    scene = Scene(seconds=5.0, contract_path=leader_contract(tmp_path), extra=leader(3.0, 4.0))
    (found,) = outcome(tmp_path, scene)
    assert not found["refused"]
    origin = Dataset(tmp_path / "out").tables[0]["action_origin"]
    assert len(origin) > 120 and origin[:80] == ["policy"] * 80
    assert origin.count("human") == pytest.approx(36, abs=4)


def test_without_a_policy_commands_are_a_persons(tmp_path: Path) -> None:
    (found,) = outcome(tmp_path, Scene(seconds=1.5, armed=None), arguments=("--only", "human"))
    assert found["figures"]["human_share"] == 1.0


def test_only_human_refuses_what_the_policy_did(tmp_path: Path) -> None:
    (found,) = outcome(tmp_path, Scene(seconds=1.5), arguments=("--only", "human"))
    assert "no row was commanded by a person" in found["refused"]


def test_joints_nobody_commands_stay_where_they_are(tmp_path: Path) -> None:
    (found,) = outcome(tmp_path, Scene(seconds=1.5, commands=False))
    assert "never commanded" in found["remarks"][0]
    data = Dataset(tmp_path / "out")
    assert data.tables[0]["action"] == data.tables[0]["observation.state"]


def test_the_rules_can_be_read(capsys) -> None:
    assert main(["dataset", "--rules"]) == 0
    text = capsys.readouterr().out
    assert "more than 0.25 s" in text and "fewer than 25 rows" in text
