"""One description of the graph; mistakes are refused before anything starts."""

from __future__ import annotations

import pytest

from wam_ros.bringup import ARGUMENTS, BringupError, processes, unknowns
from wam_ros.cli import main
from wam_ros.contract import ContractError, load_contract
from wam_ros.resources import share
from wam_ros.supervisor import command


@pytest.mark.parametrize("robot", ["agibot_g1", "franka_droid", "yam"])
def test_simulation_starts_four_processes(robot: str) -> None:
    names = [s.name for s in processes(robot)]
    assert names == ["sim", "executor", "perception", "policy"]
    assert (share() / "launch" / f"{robot}.launch.py").is_file()


def test_hardware_starts_disarmed_and_without_sim(tmp_path) -> None:
    specs = processes("agibot_g1", {"sim": "false", "policy": "replay", "replay_file": "r.npz"})
    executor = next(s for s in specs if s.name == "executor")
    assert executor.parameters["armed"] is False
    assert "sim" not in [s.name for s in specs]


def test_image_publishers_get_the_dds_profile() -> None:
    loads = {s.name: "FASTRTPS_DEFAULT_PROFILES_FILE" in s.environment for s in processes("yam")}
    assert loads == {"sim": True, "executor": False, "perception": True, "policy": False}


def test_record_adds_the_recorder() -> None:
    pytest.importorskip("mcap", reason="needs the extra `record`")
    specs = processes("yam", {"record": "true", "record_dir": "/tmp/bags"})
    recorder = next(s for s in specs if s.name == "recorder")
    assert recorder.parameters["out"] == "/tmp/bags" and recorder.parameters["auto"] is True
    assert "recorder" not in [s.name for s in processes("yam")]


def test_command_line_of_a_node() -> None:
    line = command(processes("yam", {"namespace": "lab"})[1])
    assert "__ns:=/lab" in line
    assert "robot:=yam" in line and "armed:=true" in line


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"polcy": "scripted"}, "unknown argument 'polcy'"),
        ({"cadence": "fast"}, "not one of sync"),
        ({"policy": "replay"}, "needs replay_file"),
        ({"sim": "false"}, "true object poses"),
        ({"latency": "soon"}, "not a number"),
    ],
)
def test_wrong_arguments_are_refused(given: dict[str, str], text: str) -> None:
    with pytest.raises(BringupError, match=text):
        processes("agibot_g1", given)


def test_unknown_robot_is_refused() -> None:
    with pytest.raises(ContractError, match="Did you mean 'yam'"):
        processes("yams")


def test_unknown_facts_are_listed() -> None:
    lines = "\n".join(unknowns(load_contract("agibot_g1")))
    assert "output 'head' on /wbc/head_command" in lines
    assert "mount of camera 'hand_left'" in lines


def test_every_argument_is_described() -> None:
    assert all(a.description and len(a.description) < 90 for a in ARGUMENTS)


def test_cli_names_an_unknown_robot(capsys) -> None:
    assert main(["launch", "agibot_g2"]) == 2
    assert "Did you mean 'agibot_g1'" in capsys.readouterr().err


def test_cli_shows_launch_arguments(capsys) -> None:
    assert main(["launch", "agibot_g1", "--show-args"]) == 0
    assert "cadence:=async" in capsys.readouterr().out
