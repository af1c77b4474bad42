"""`wam inspect-checkpoint`: facts and problems, from headers only."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from wam_ros.wam import cli
from wam_ros.wam.checkpoint.experiment import EmbodimentSetup, Experiment
from wam_ros.wam.checkpoint.inspect import examine
from wam_ros.wam.checkpoint.load import Networks
from wam_ros.wam.checkpoint.metadata import read_metadata
from wam_ros.wam.checkpoint.save import save
from wam_ros.wam.config import WamConfig
from wam_ros.wam.embodiments import embodiment


@pytest.fixture
def folder(tmp_path: Path, tiny_model: tuple[WamConfig, Networks], golden: Path) -> Path:
    metadata = {"agibot": read_metadata(golden / "metadata.json")["agibot"]}
    known = embodiment("agibot")
    setup = EmbodimentSetup(
        known.cameras, tuple(k for k, _ in known.state), tuple(k for k, _ in known.action), {}, 30.0
    )
    experiment = Experiment({"agibot": setup}, True, known.relative, False)
    save(tmp_path / "ckpt", *tiny_model, metadata, experiment)
    return tmp_path / "ckpt"


def test_sound_checkpoint(
    folder: Path,
    tmp_path: Path,
    tiny_model: tuple[WamConfig, Networks],
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out.json"
    assert cli.main(["inspect-checkpoint", str(folder), "--json", str(out)]) == 0
    text = capsys.readouterr().out
    assert "no problems found" in text
    assert "full weights" in text
    config, networks = tiny_model
    data = json.loads(out.read_text())
    assert data["horizon"] == config.head.action_horizon
    for component, module in networks.by_component().items():
        used = sum(p.numel() for p in module.parameters())
        unused = sum(t.numel() for t in getattr(module, "unused", {}).values())
        assert data["parameters"][component] == used + unused
        assert list(data["precision"][component]) == ["F32"]
    (found,) = data["embodiments"]
    assert (found["tag"], found["state_dim"], found["action_dim"]) == ("agibot", 20, 22)
    assert found["step_period"] == pytest.approx(1 / 30)
    assert found["statistics"]
    assert "robot_velocity" not in found["relative"]
    assert found["resolution"] == [640, 480]


def test_problems_are_listed_and_fail(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "experiment_cfg" / "metadata.json"
    metadata = json.loads(path.read_text())
    del metadata["agibot"]["statistics"]["action"]["head_position"]
    path.write_text(json.dumps(metadata))
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    assert cli.main(["inspect-checkpoint", str(folder)]) == 1
    text = capsys.readouterr().out
    assert "cut off or damaged" in text
    assert "1 problems" in text  # a cut file hides the rest


def test_statistics_that_lack_a_key_or_are_malformed(folder: Path) -> None:
    path = folder / "experiment_cfg" / "metadata.json"
    metadata = json.loads(path.read_text())
    statistics = metadata["agibot"]["statistics"]["action"]
    kept = statistics.pop("head_position")
    path.write_text(json.dumps(metadata))
    assert examine(folder).problems == ["agibot: no statistics for action.head_position"]
    del kept["q99"]
    statistics["head_position"] = kept
    path.write_text(json.dumps(metadata))
    (problem,) = examine(folder).problems
    assert "'agibot' action statistics: 'head_position': q99 missing" in problem
    path.unlink()
    (problem,) = examine(folder).problems
    assert "metadata.json: not found" in problem


def test_conf_yaml_is_optional_but_must_be_readable(folder: Path) -> None:
    path = folder / "experiment_cfg" / "conf.yaml"
    path.write_text("modality_configs: [")
    assert any("not valid YAML" in note for note in examine(folder).notes)
    path.unlink()
    findings = examine(folder)
    assert findings.problems == []
    assert findings.embodiments[0].action_dim == 22


def test_references_in_conf_yaml_are_followed(folder: Path) -> None:
    path = folder / "experiment_cfg" / "conf.yaml"
    path.write_text(
        """
relative_action: true
relative_action_keys: [left_arm_joint_position]
modality_config_agibot:
  video: {modality_keys: [video.top_head]}
  state: {modality_keys: [state.left_arm_joint_position]}
  action: {modality_keys: [action.left_arm_joint_position]}
transform_agibot:
  transforms:
    - {apply_to: "${modality_config_agibot.video.modality_keys}", scale: 0.95}
    - normalization_modes: {action.left_arm_joint_position: min_max}
    - ${model_specific_transform}
modality_configs: {agibot: "${modality_config_agibot}"}
transforms: {agibot: "${transform_agibot}"}
fps: {agibot: 15}
"""
    )
    (found,) = examine(folder).embodiments
    assert (found.state_dim, found.action_dim) == (7, 7)
    assert found.relative == ["left_arm_joint_position"]
    assert found.step_period == pytest.approx(1 / 15)
    assert found.cameras == ["top_head"]


def test_it_needs_no_torch(folder: Path) -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'diffusers', 'transformers', 'safetensors'):\n"
        "    sys.modules[name] = None\n"
        "from wam_ros.wam.checkpoint.inspect import examine\n"
        f"sys.exit(len(examine(__import__('pathlib').Path({str(folder)!r})).problems))"
    )
    root = Path(__file__).resolve().parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


def test_missing_packages_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name in ("torch", "yaml") else name
    )
    assert cli.main(["parity", "--golden", "x"]) == 2
    assert "pip install torch" in capsys.readouterr().err
    assert cli.main(["inspect-checkpoint", "x"]) == 2
    assert "pip install pyyaml" in capsys.readouterr().err


def test_the_command_line_stays_light() -> None:
    code = (
        "import sys, wam_ros.wam.cli, argparse\n"
        "wam_ros.wam.cli.add_parser(argparse.ArgumentParser().add_subparsers())\n"
        "sys.exit(any(n in sys.modules for n in ('torch', 'diffusers', 'transformers', 'numpy')))"
    )
    root = Path(__file__).resolve().parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
