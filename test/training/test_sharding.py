"""Fine-tuning by several processes, and of checkpoints that are conditioned on the first frame."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "serving"))
from random_checkpoint import write_checkpoint

from wam_ros.cli import main
from wam_ros.training.gear import GearDataset
from wam_ros.wam.checkpoint.load import load

from .conftest import HEIGHT, WIDTH

COMMON = ["--batch", "4", "--minutes", "9", "--threads", "1", "--rate", "0.05"]
STEPS = ["--steps", "3", *COMMON]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint of the 14B's kind: CLIP, and the first frame beside the latents."""
    folder = write_checkpoint(tmp_path_factory.mktemp("base"))
    file = folder / "experiment_cfg" / "metadata.json"
    metadata = json.loads(file.read_text())
    for view in metadata["agibot"]["modalities"]["video"].values():
        view["resolution"] = [WIDTH, HEIGHT]
    file.write_text(json.dumps(metadata))
    return folder


def changes(base: Path, tuned: Path, lora: bool) -> torch.Tensor:
    """What training did to the transformer, as one vector."""
    before = load(base, dtype=torch.float32).networks.dit.state_dict()
    after = load(tuned, base if lora else None, dtype=torch.float32).networks.dit.state_dict()
    return torch.cat([(after[k] - v).flatten() for k, v in before.items()])


def by_two(line: list[str]) -> str:
    """What two processes under torchrun print."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    torchrun += ["--nproc-per-node", "2", "-m", "wam_ros.cli"]
    done = subprocess.run(
        [*torchrun, *line], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("lora", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_two_processes_do_what_one_does(
    base: Path, dataset: GearDataset, tmp_path: Path, lora: bool
) -> None:
    line = ["train", str(dataset.folder), "--from", str(base), *STEPS, *["--lora"] * lora]
    assert main([*line, "--out", str(tmp_path / "one")]) == 0
    told = by_two([*line, "--out", str(tmp_path / "two")])
    assert told.count("step 3 ") == 1, "one of them speaks"
    one, split = (changes(base, tmp_path / name, lora) for name in ("one", "two"))
    assert one.norm() > 0.1
    assert (one - split).norm() < 0.02 * one.norm()
    shares = sorted(p.name for p in (tmp_path / "two" / "stages").glob("*of2.pt"))
    assert len(shares) == 2


@pytest.mark.slow
def test_two_processes_go_on_from_their_shares(
    base: Path, dataset: GearDataset, tmp_path: Path
) -> None:
    line = ["train", str(dataset.folder), "--from", str(base), *COMMON]
    for steps in ("2", "4"):
        assert main([*line, "--steps", steps, "--out", str(tmp_path / "one")]) == 0
        told = by_two([*line, "--steps", steps, "--out", str(tmp_path / "two")])
        assert ("going on at step 2" in told) == (steps == "4")
    one, split = (changes(base, tmp_path / name, False) for name in ("one", "two"))
    assert (one - split).norm() < 0.02 * one.norm()


def test_views_of_another_size_are_refused(
    dataset: GearDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = write_checkpoint(tmp_path / "base")
    line = ["train", str(dataset.folder), "--from", str(base), "--out", str(tmp_path / "x"), *STEPS]
    assert main(line) == 1
    assert "`wam dataset --size 640x480`" in capsys.readouterr().out


def test_a_batch_that_does_not_divide_is_refused(
    base: Path, dataset: GearDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wam_ros.training import finetune
    from wam_ros.training.gear import GearError
    from wam_ros.training.ranks import Ranks
    from wam_ros.training.recipe import Settings
    from wam_ros.wam.text import Tokenizer

    loaded = load(base, dtype=torch.float32)
    tokenizer = Tokenizer(base / "tokenizer", loaded.config.dit.text_len)
    ranks = Ranks(0, 3, torch.device("cpu"))
    with pytest.raises(GearError, match="--batch 4 does not divide among 3 processes"):
        finetune.finetune(
            loaded, base, tokenizer, dataset, tmp_path, Settings(batch=4), print, ranks=ranks
        )
