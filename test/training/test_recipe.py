"""From a dataset to a checkpoint that the policy hosts."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from wam_ros.cli import main
from wam_ros.contract.data import Observation
from wam_ros.contract.load import load_contract
from wam_ros.policy.base import Window
from wam_ros.policy.wam import WamPolicy
from wam_ros.training import recipe
from wam_ros.training.finetune import merged, suited
from wam_ros.training.gear import GearDataset, GearError
from wam_ros.training.prepare import measurable
from wam_ros.training.recipe import Settings, SmallRecipe
from wam_ros.wam import presets
from wam_ros.wam.checkpoint.errors import CheckpointError
from wam_ros.wam.checkpoint.experiment import EmbodimentSetup, Experiment
from wam_ros.wam.checkpoint.load import load
from wam_ros.wam.checkpoint.origin import noted_base, weights_name

from .conftest import HEIGHT, TASKS, WIDTH, write_dataset

QUICK = ["--steps", "2", "--batch", "2", "--minutes", "5", "--threads", "1"]


@pytest.fixture(scope="module")
def checkpoint(dataset: GearDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "wam"
    assert main(["train", str(dataset.folder), "--out", str(out), *QUICK]) == 0
    return out


def test_a_trained_checkpoint_drives_the_robot_it_was_trained_for(checkpoint: Path) -> None:
    contract = load_contract("agibot_g1")
    policy = WamPolicy({"checkpoint": str(checkpoint)})
    policy.configure(contract)
    policy.reset(TASKS[0])
    grey = np.full((HEIGHT, WIDTH, 3), 99, np.uint8)
    views = {c.name: grey for c in contract.cameras}
    home = np.array([contract.joints[n].home for n in contract.state_names])
    chunk = policy.infer(Window((Observation(0.0, views, home),)))
    assert chunk.actions.shape == (24, 20)
    assert np.isfinite(chunk.actions).all()
    # Two steps teach nothing, but what does not move in the data must not move.
    still = [chunk.names.index(n) for n in ("waist_lift", "head_pitch")]
    assert np.ptp(chunk.actions[:, still], axis=0).max() < 3.0


def test_the_checkpoint_says_what_it_was_trained_on(checkpoint: Path, dataset: GearDataset) -> None:
    loaded = load(checkpoint, dtype=torch.float32)
    assert loaded.metadata is not None
    assert loaded.metadata["agibot"].resolution == (WIDTH, HEIGHT)
    statistics = loaded.metadata["agibot"].action_statistics
    ours = dataset.metadata.action_statistics
    for key in ours:
        np.testing.assert_array_equal(statistics[key].q99, ours[key].q99)
    assert len(set(loaded.config.vae.latents_std)) > 1
    facts = json.loads((checkpoint / "training.json").read_text())
    assert facts["dataset"] == {"episodes": 4, "rows": 360, "tasks": 2}
    for stage in ("vae", "words", "places", "dit"):
        lines = (checkpoint / "stages" / f"{stage}.jsonl").read_text().splitlines()
        assert json.loads(lines[-1])["step"] == 2
    assert (checkpoint / "curves.png").stat().st_size > 5000
    # Whoever may read the configuration may read the weights.
    weights, told = checkpoint / "model.safetensors", checkpoint / "config.json"
    assert weights.stat().st_mode == told.stat().st_mode


def test_the_same_seed_gives_the_same_weights_with_the_vae_aside(
    checkpoint: Path, dataset: GearDataset, tmp_path: Path
) -> None:
    again = tmp_path / "again"
    assert main(["train", str(dataset.folder), "--out", str(again), *QUICK, "--jobs", "2"]) == 0
    assert set(json.loads((again / "stages" / "video.json").read_text())) == {"vae", "encode"}
    a, b = ((p / "model.safetensors").read_bytes() for p in (checkpoint, again))
    assert a == b


@pytest.mark.parametrize("lora", [False, True])
def test_fine_tuning_changes_the_transformer_only(
    checkpoint: Path, dataset: GearDataset, tmp_path: Path, lora: bool
) -> None:
    out = tmp_path / "tuned"
    extra = ["--lora"] if lora else []
    args = ["train", str(dataset.folder), "--out", str(out), "--from", str(checkpoint)]
    assert main([*args, *extra, *QUICK, "--rate", "0.01"]) == 0
    before = load(checkpoint, dtype=torch.float32).networks
    after = load(out, dtype=torch.float32).networks  # adapters remember where their base is
    for name, module in before.by_component().items():
        now = after.by_component()[name].state_dict()
        changed = any(not torch.equal(v, now[k]) for k, v in module.state_dict().items())
        assert changed == (name == "dit"), name
    facts = json.loads((out / "training.json").read_text())
    assert facts["settings"]["lora"] == lora and list(facts["steps"].values()) == [2]
    # It is whole: whoever runs it names nothing but its folder.
    policy = WamPolicy({"checkpoint": str(out)})
    policy.configure(load_contract("agibot_g1"))
    policy.reset(TASKS[0])


def _train_on(checkpoint: Path) -> None:
    """Other weights than before, though only just."""
    file = checkpoint / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def test_a_tuned_checkpoint_does_not_go_on_from_another_base(
    checkpoint: Path, dataset: GearDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = shutil.copytree(checkpoint, tmp_path / "base")
    line = ["train", str(dataset.folder), "--out", str(tmp_path / "tuned"), *QUICK]
    assert main([*line, "--from", str(base)]) == 0
    weights = (tmp_path / "tuned" / "model.safetensors").read_bytes()
    # The same weights elsewhere are the same base; weights that were trained on are not.
    moved = shutil.move(base, tmp_path / "moved")
    assert main([*line, "--from", str(moved)]) == 0
    _train_on(moved)
    capsys.readouterr()
    assert main([*line, "--from", str(moved)]) == 1
    assert "begun with another checkpoint" in capsys.readouterr().out
    assert (tmp_path / "tuned" / "model.safetensors").read_bytes() == weights


def test_every_checkpoint_is_tuned_as_it_was_trained(tmp_path: Path) -> None:
    given, ours, released = Settings(), presets.small(), presets.preset("14b")
    plain = suited(given, ours, tmp_path, ())
    assert plain == dataclasses.replace(given, dit_rate=plain.dit_rate)
    assert plain.dit_rate < given.dit_rate
    told = {**dataclasses.asdict(given), "video_weight": 0.0, "schedule": "decoupled"}
    (tmp_path / "training.json").write_text(json.dumps({"settings": told}))
    found = suited(given, ours, tmp_path, ())
    assert (found.video_weight, found.schedule, found.levels) == (0.0, "decoupled", None)
    assert found.sampling == given.sampling
    assert suited(given, ours, tmp_path, {"schedule"}).levels == given.sampling
    usual = suited(given, released, tmp_path, ())
    assert (usual.video_weight, usual.dit_rate) == (0.3, 1e-5)
    asked = dataclasses.replace(given, video_weight=0.0, dit_rate=1e-4)
    kept = suited(asked, released, tmp_path, {"video_weight", "dit_rate"})
    assert (kept.video_weight, kept.dit_rate) == (0.0, 1e-4)


def test_adapters_know_their_base_and_nothing_else(
    checkpoint: Path, dataset: GearDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = shutil.copytree(checkpoint, tmp_path / "base")
    tuned = tmp_path / "tuned"
    line = ["train", str(dataset.folder), "--lora", *QUICK]
    assert main([*line, "--from", str(base), "--out", str(tuned)]) == 0
    assert noted_base(tuned) == base
    # Adapters on adapters could be trained, but not stored.
    capsys.readouterr()
    assert main([*line, "--from", str(tuned), "--out", str(tmp_path / "twice")]) == 1
    assert "holds adapters itself" in capsys.readouterr().out
    _train_on(base)
    with pytest.raises(CheckpointError, match="no longer has"):
        load(tuned)
    load(tuned, checkpoint)  # the old weights, by name
    shutil.rmtree(base)
    with pytest.raises(CheckpointError, match="LoRA adapters only"):
        load(tuned)


def test_the_same_weights_have_the_same_name(checkpoint: Path, tmp_path: Path) -> None:
    again = shutil.copytree(checkpoint, tmp_path / "again")
    assert weights_name(again) == weights_name(checkpoint)
    _train_on(again)
    assert weights_name(again) != weights_name(checkpoint)


def test_a_vae_that_dies_ends_the_training_at_its_next_line(
    dataset: GearDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise SystemExit(3)

    monkeypatch.setattr(recipe, "_video", die)
    fork = multiprocessing.get_context("fork")
    monkeypatch.setattr(recipe.mp, "get_context", lambda _: fork)
    made = SmallRecipe(dataset, tmp_path / "out", Settings(jobs=2), lambda _: None)
    with pytest.raises(RuntimeError, match="ended with 3"), made._video_aside():
        end = time.monotonic() + 30
        while time.monotonic() < end:
            made._say("words      1 %")
            time.sleep(0.05)
        pytest.fail("the encoders went on")
    made._say("nobody minds any more")


def test_wrong_usage_is_explained(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, dataset: GearDataset
) -> None:
    assert main(["train"]) == 2
    assert "--out" in capsys.readouterr().out
    assert main(["train", str(dataset.folder), "--out", str(tmp_path), "--lora"]) == 2
    assert "--from" in capsys.readouterr().out
    assert main(["train", str(tmp_path), "--out", str(tmp_path / "x")]) == 1
    assert "info.json not found" in capsys.readouterr().out


def test_weights_of_another_origin_are_not_overwritten(
    checkpoint: Path, dataset: GearDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "DreamZero-AgiBot"
    other.mkdir()
    weights = other / "model-00001-of-00002.safetensors"
    weights.write_bytes(b"precious")
    line = ["train", str(dataset.folder), *QUICK, "--out"]
    for extra in ([], ["--from", str(checkpoint)]):
        assert main([*line, str(other), *extra]) == 1
        assert "not trained here" in capsys.readouterr().out
    assert weights.read_bytes() == b"precious"
    assert main([*line, str(checkpoint), "--from", str(checkpoint)]) == 1
    assert "the checkpoint to fine-tune" in capsys.readouterr().out


def test_other_data_or_settings_do_not_go_on_with_a_run(
    checkpoint: Path, dataset: GearDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = (checkpoint / "model.safetensors").read_bytes()
    line = ["train", str(dataset.folder), "--out", str(checkpoint), *QUICK]
    assert main([*line, "--action-only", "--seed", "5"]) == 1
    said = capsys.readouterr().out
    assert "seed 0 there, 5 now" in said and "video_weight 0.02 there, 0.0 now" in said
    other = write_dataset(tmp_path / "other", seed=9)
    assert main(["train", str(other), "--out", str(checkpoint), *QUICK]) == 1
    assert "begun with another dataset" in capsys.readouterr().out
    assert (checkpoint / "model.safetensors").read_bytes() == weights
    # The same data from another place, and more time, are no other run.
    moved = shutil.copytree(dataset.folder, tmp_path / "moved")
    assert main(["train", str(moved), "--out", str(checkpoint), *QUICK, "--minutes", "6"]) == 0


def test_a_held_out_part_that_cannot_be_measured_on_is_said_and_left_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert measurable("dit", lambda: 1, print) == 1

    def refuse() -> int:
        raise ValueError("no instruction was carried out")

    assert measurable("dit", refuse, print) is None
    assert "dit: nothing held out to measure on (no instruction" in capsys.readouterr().out


def test_a_fine_tuned_checkpoint_keeps_what_it_said_of_other_robots() -> None:
    def setup(*keys: str) -> EmbodimentSetup:
        return EmbodimentSetup(("view",), keys, keys, {}, 30.0)

    known = Experiment({"agibot": setup("arm"), "yam": setup("old")}, True, ("arm",), False)
    new = Experiment({"yam": setup("left")}, True, ("left",), False)
    both = merged(known, new)
    assert set(both.embodiments) == {"agibot", "yam"}
    assert both.embodiments["yam"].state == ("left",)
    assert set(both.relative) == {"arm", "left"}
    assert merged(None, new) == new
    with pytest.raises(GearError, match=r"agibot.* have absolute actions"):
        merged(Experiment({"agibot": setup("arm")}, False, (), False), new)
