"""Our numbers against those recorded from the reference."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from wam_ros.wam import cli
from wam_ros.wam.parity import runner
from wam_ros.wam.parity.result import Result


@pytest.mark.parametrize("name", sorted(runner.cases()))
def test_case(name: str, golden: Path) -> None:
    outcome = runner.run_case(name, runner.cases()[name], golden)
    assert outcome.absent is None
    assert outcome.results
    assert [f"{r.name}: {r.error} > {r.limit}; {r.detail}" for r in outcome.missed] == []


def test_every_recorded_network_file_has_a_case(golden: Path) -> None:
    names = runner.cases()
    for stem in ("vae21", "vae22", "lora", "dit_train", "dit_infer_5b", "embodiment_mlp", "unipc"):
        assert (golden / f"{stem}.safetensors").is_file()
        assert stem in names


def test_absent_file_is_reported_and_nothing_compared_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["parity", "--golden", str(tmp_path), "--case", "metadata"]) == 1
    assert "metadata.json is not in this folder" in capsys.readouterr().out


def test_a_changed_number_is_a_miss(
    tmp_path: Path, golden: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "golden"
    folder.mkdir()
    shutil.copy(golden / "prompts.json", folder)
    shutil.copy(golden / "actions_yam.npz", folder)
    metadata = json.loads((golden / "metadata.json").read_text())
    metadata["yam"]["statistics"]["action"]["left_joint_pos"]["q99"][0] += 1e-3
    (folder / "metadata.json").write_text(json.dumps(metadata))
    out = tmp_path / "out.json"
    arguments = ["parity", "--golden", str(folder), "--json", str(out)]
    assert cli.main([*arguments, "--case", "actions", "--case", "prompts"]) == 1
    printed = capsys.readouterr().out
    assert "MISS   actions" in printed
    assert "actions/yam unnormalized left_joint_pos" in printed
    assert "ok     prompts" in printed
    summary = json.loads(out.read_text())
    assert not summary["ok"]
    assert summary["missed"] == 3


def test_a_changed_quantile_or_key_of_the_data_set_is_a_miss(tmp_path: Path, golden: Path) -> None:
    shutil.copytree(golden / "gear_dataset", tmp_path / "gear_dataset")
    meta = tmp_path / "gear_dataset" / "expected_meta"
    stats = json.loads((meta / "stats.json").read_text())
    stats["action"]["q99"][2] *= 1 + 1e-9
    (meta / "stats.json").write_text(json.dumps(stats))
    modality = json.loads((meta / "modality.json").read_text())
    modality["state"] = dict(reversed(modality["state"].items()))
    (meta / "modality.json").write_text(json.dumps(modality))
    outcome = runner.run_case("gear_dataset", runner.cases()["gear_dataset"], tmp_path)
    missed = {r.name: r.detail for r in outcome.missed}
    assert set(missed) == {"gear_dataset/stats.json", "gear_dataset/modality.json"}
    assert ".action.q99[2]" in missed["gear_dataset/stats.json"]


def test_a_case_that_cannot_run_says_what_to_install(
    golden: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    outcome = runner.run_case("gear_dataset", runner.cases()["gear_dataset"], golden)
    assert outcome.absent is not None and "wam_ros[record]" in outcome.absent
    assert not outcome.results


def test_a_crash_in_one_case_is_a_miss_not_an_end(tmp_path: Path) -> None:
    def broken(folder: Path):  # type: ignore[no-untyped-def]
        yield Result("fine", 0.0, 0.0, True)
        raise RuntimeError("no kernel")

    outcome = runner.run_case("broken", broken, tmp_path)
    assert [r.detail for r in outcome.missed] == ["RuntimeError: no kernel"]
    assert len(outcome.results) == 2


def test_unknown_case_and_folder_are_usage_errors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["parity", "--golden", str(tmp_path), "--case", "nonsense"]) == 2
    assert "no case nonsense" in capsys.readouterr().err
    assert cli.main(["parity", "--golden", str(tmp_path / "nowhere")]) == 2
    assert "no such folder" in capsys.readouterr().err
