"""One description of the graph; mistakes are refused before anything starts."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

from wam_ros.bringup import BringupError, processes, unknowns
from wam_ros.cli import main
from wam_ros.contract import ContractError, load_contract
from wam_ros.execution import Settings
from wam_ros.launch_arguments import ARGUMENTS
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
        ({"sim": "false"}, "say what shall move the robot"),
        ({"sim": "false", "policy": "scripted"}, "true object poses"),
        ({"sim": "false", "policy": "wam"}, "needs checkpoint:=FOLDER on hardware"),
        ({"latency": "soon"}, "not a number"),
        ({"imagined_every": "-1"}, "must not be negative"),
        ({"imagined_every": "nan"}, "must not be negative"),
    ],
)
def test_wrong_arguments_are_refused(given: dict[str, str], text: str) -> None:
    with pytest.raises(BringupError, match=text):
        processes("agibot_g1", given)


def test_a_model_leaves_cores_to_the_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    def policy() -> dict[str, str]:
        return next(s for s in processes("yam") if s.name == "policy").environment

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    assert policy() == {"OMP_NUM_THREADS": "4"}
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    assert policy() == {"OMP_NUM_THREADS": "1"}
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert policy() == {}, "the user's own word counts"


def test_only_a_simulation_spends_calls_on_pictures_unless_told_to() -> None:
    def every(**given: str) -> float:
        policy = next(s for s in processes("agibot_g1", given) if s.name == "policy")
        return float(policy.parameters["imagined_every"])

    hardware = {"sim": "false", "policy": "wam", "checkpoint": "somewhere"}
    assert every() > 0.0
    assert every(**hardware) == 0.0
    assert every(**hardware, imagined_every="2") == 2.0


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


def test_remote_policies_need_a_server_and_the_right_cadence() -> None:
    with pytest.raises(BringupError, match="policy:=openpi needs server:="):
        processes("franka_droid", {"policy": "openpi"})
    given = {"policy": "lingbot_va", "server": "ws://gpu:8000", "cadence": "async"}
    with pytest.raises(BringupError, match="cadence:=sync"):
        processes("yam", given)
    policy = next(s for s in processes("yam", {**given, "cadence": "sync"}) if s.name == "policy")
    assert policy.parameters["server"] == "ws://gpu:8000"
    assert policy.parameters["server_timeout"] == 10.0


def test_a_model_needs_a_checkpoint() -> None:
    with pytest.raises(BringupError, match="checkpoint:=FOLDER"):
        processes("yam", {"policy": "wam"})
    with pytest.raises(BringupError, match="model_python"):
        processes("yam", {"model_python": "/opt/torch/bin/python"})


def test_model_python_runs_the_model_beside_the_graph(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("wam_ros.model_server.unfit", lambda python: "")
    given = {"policy": "wam", "checkpoint": "/models/dz", "model_python": sys.executable}
    specs = {s.name: s for s in processes("yam", given)}
    line = command(specs["model"])
    assert line[:5] == [sys.executable, "-m", "wam_ros.serving.cli", "serve", "yam"]
    assert "checkpoint=/models/dz" in line and "rclpy" not in " ".join(line)
    port = line[line.index("--port") + 1]
    assert specs["policy"].parameters["policy"] == "wam_serve"
    assert specs["policy"].parameters["server"] == f"ws://127.0.0.1:{port}"
    lent = specs["model"].environment["PYTHONPATH"]
    assert [p.name for p in tmp_path.joinpath(lent).iterdir()] == ["wam_ros"]


def test_a_python_that_cannot_run_the_model_is_refused(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    bare = tmp_path / "bare"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
    bare.chmod(0o755)
    given = {"policy": "wam", "checkpoint": "/models/dz"}
    for python, reason in (("/opt/none/python", "No such file"), (str(bare), "it has no torch, ")):
        with pytest.raises(BringupError, match=f"{python} cannot run the model: .*{reason}"):
            processes("yam", {**given, "model_python": python})


def test_wam_serve_runs_in_a_python_without_ros(tmp_path, monkeypatch) -> None:
    """Only this package and the libraries it serves with; nothing else of this environment."""
    import importlib.util
    from pathlib import Path

    from wam_ros import model_server

    names = ("numpy", "msgpack", "websockets", "yaml", "jsonschema", "cv2")
    needed = (*names, "referencing", "attr", "rpds", "typing_extensions")
    folder = model_server.lend(tmp_path)
    for name in needed:
        spec = importlib.util.find_spec(name)
        assert spec is not None and spec.origin is not None
        found = Path(spec.origin)
        source = found.parent if found.name.startswith("__init__") else found
        for path in source.parent.glob(f"{source.stem}*"):  # with the libraries beside it
            if "-info" not in path.name:
                (folder / path.name).symlink_to(path)
    script = (
        "import sys, wam_ros.serving.cli as c; "
        "assert not [m for m in sys.modules if m.startswith(('rclpy', 'torch'))]; "
        "sys.exit(c.main(['serve', 'yam', '--port', '0']))"
    )
    # -S leaves site-packages out.
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", script],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None and process.stderr is not None
        said = process.stdout.readline()
        assert "ready: ws://127.0.0.1:" in said, process.stderr.read()
    finally:
        process.terminate()
        process.communicate(timeout=15)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="PYTHONSAFEPATH came with Python 3.11")
def test_the_model_is_not_served_by_another_checkout(tmp_path, monkeypatch) -> None:
    """`ros2 launch` may be typed in any folder, one with a `wam_ros` in it too."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "wam_ros").mkdir()
    (tmp_path / "wam_ros" / "__init__.py").write_text("raise SystemExit('another checkout')")
    monkeypatch.setattr("wam_ros.model_server.unfit", lambda python: "")
    given = {"policy": "wam", "checkpoint": "/models/dz", "model_python": sys.executable}
    spec = next(s for s in processes("yam", given) if s.name == "model")
    done = subprocess.run(
        [*command(spec)[:4], "--help"],
        cwd=tmp_path,
        env={**os.environ, **spec.environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "--dialect" in done.stdout


def test_the_executor_can_be_tuned_at_launch() -> None:
    def executor(**given: str) -> dict[str, Any]:
        return next(s for s in processes("yam", given) if s.name == "executor").parameters

    usual, tuned = executor(), executor(smoothing="0.05", savgol="true", deadman="1")
    for field in ("smoothing", "fade", "ensemble", "savgol", "reanchor_cap", "slowest"):
        assert usual[field] == getattr(Settings, field), field
    assert usual["deadman"] == 0.0
    assert (tuned["smoothing"], tuned["savgol"], tuned["deadman"]) == (0.05, True, 1.0)


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"slowest": "0.1"}, "slowest is 0.1; 0.2 to 1"),
        ({"smoothing": "-1"}, "smoothing is -1.0; 0 to 2"),
        ({"ensemble": "2"}, "ensemble is 2.0; 0 to 1"),
        ({"reanchor_cap": "nan"}, "reanchor_cap is nan"),
        ({"deadman": "-1"}, "must not be negative"),
        ({"fade": "long"}, "fade:=long is not a number"),
    ],
)
def test_tuning_out_of_range_is_refused_before_anything_starts(
    given: dict[str, str], what: str
) -> None:
    with pytest.raises(BringupError, match=what):
        processes("yam", given)
