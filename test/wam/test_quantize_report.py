"""The accuracy report: complete, in the right order of size, and from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from wam_ros.wam import cli, synthetic
from wam_ros.wam.checkpoint.load import Networks
from wam_ros.wam.checkpoint.save import save
from wam_ros.wam.config import WamConfig
from wam_ros.wam.head import CallOptions
from wam_ros.wam.precision.accuracy import AccuracyReport, Difference, accuracy
from wam_ros.wam.presets import tiny

from .conftest import random_networks

OPTIONS = CallOptions(2)


def networks(config: WamConfig) -> Networks:
    text, image, vae = synthetic.random_encoders(config, torch.float32)
    return Networks(synthetic.random_dit("tiny"), text, image, vae)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def reports() -> dict[str, AccuracyReport]:
    config = tiny()
    return {p: accuracy(config, networks(config), p, OPTIONS) for p in ("bf16", "int8", "fp8")}


def test_difference() -> None:
    a = torch.tensor([3.0, 4.0])
    assert Difference.of(2 * a, a) == Difference(1.0, pytest.approx(1.0))  # type: ignore[arg-type]
    assert Difference.of(torch.tensor([-4.0, 3.0]), a).cosine == pytest.approx(0.0)


@pytest.mark.parametrize("precision", ["bf16", "int8", "fp8"])
def test_every_layer_and_every_cache_position_is_there(
    reports: dict[str, AccuracyReport], precision: str
) -> None:
    report = reports[precision]
    assert report.cached_frames == (1, 3, 5, 7)
    assert len(report.layers) == 24
    for name, errors in report.layers.items():
        once = name.rpartition(".")[2] in ("k", "v", "k_img", "v_img") and "cross" in name
        assert tuple(errors) == ((1,) if once else (1, 3, 5, 7)), name
        assert all(0 < d.relative < 0.1 for d in errors.values())
    for name in {"bf16", precision}:
        assert tuple(report.actions[name]) == (1, 3, 5, 7)
        assert all(0 < d.relative < 0.2 and d.cosine > 0.98 for d in report.actions[name].values())


def test_errors_are_ordered_as_the_bits_are(reports: dict[str, AccuracyReport]) -> None:
    def mean(report: AccuracyReport) -> float:
        found = [d.relative for errors in report.layers.values() for d in errors.values()]
        return sum(found) / len(found)

    assert mean(reports["bf16"]) < mean(reports["int8"]) < mean(reports["fp8"])
    sizes = reports["fp8"].bytes
    assert sizes["fp8"] < sizes["bf16"] == sizes["reference"] // 2


def test_a_checkpoint_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path / "checkpoint", tiny(), random_networks(tiny()))
    out = tmp_path / "report.json"
    command = ["quantize-report", str(tmp_path / "checkpoint"), "--steps", "1", "--json", str(out)]
    assert cli.main(command) == 0
    printed = capsys.readouterr().out
    assert "blocks.1.ffn.2" in printed
    assert "7 cached" in printed
    assert "random weights" not in printed
    data = json.loads(out.read_text())
    assert data["actions"]["fp8"]["7"]["relative"] > 0
    assert data["replaced"] == 24


def test_random_weights_are_called_so_and_many_layers_are_summed_up(
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["quantize-report", "--random", "tiny", "--layers", "6", "--steps", "1"]
    assert cli.main(command) == 0
    printed = capsys.readouterr().out
    assert "random weights" in printed
    assert "median" in printed
    assert "blocks.3.self_attn.q  " not in printed.split("where")[0]


def test_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["quantize-report"]) == 2
    assert "either a checkpoint folder or --random" in capsys.readouterr().err
    assert cli.main(["quantize-report", "--random", "9b"]) == 2
    assert "no size '9b'; there are tiny, small, 5b, 14b" in capsys.readouterr().err
    assert cli.main(["quantize-report", "--random", "tiny", "--precision", "nvfp4"]) == 2
    assert "Blackwell" in capsys.readouterr().err
