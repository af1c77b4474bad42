"""`wam evaluate`: the same scenes for every policy, honest records, a table with intervals."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from wam_ros.cli import main
from wam_ros.commands.evaluate import policy_of
from wam_ros.rollout.evaluate import Condition, Evaluator, evaluate
from wam_ros.rollout.loop import Rollout

SMALL = Condition("teacher", "scripted", "async", robot="franka_droid", render_width=48)


def test_every_policy_and_cadence_meets_the_same_scenes_and_sentences() -> None:
    conditions = [
        SMALL,
        dataclasses.replace(SMALL, cadence="sync"),
        dataclasses.replace(SMALL, label="still", backend="hold", deadline=1.0),
    ]
    records = evaluate(conditions, 2)
    met = [[(r.seed, r.instruction) for r in records[i : i + 2]] for i in (0, 2, 4)]
    assert met[0] == met[1] == met[2] and met[0][0] != met[0][1]
    assert all(r.success and r.time_to_success is not None for r in records[:4])
    assert not any(r.success for r in records[4:]) and records[4].time_to_success is None
    assert records[0].final_distance < 0.03 < records[4].final_distance
    assert records[0].path_length > 0.1 > records[4].path_length
    assert records[0].rms_jerk > records[4].rms_jerk == pytest.approx(0.0, abs=1e-3)
    assert records[2].holds > records[0].holds == 0
    assert set(records[0].chunk_latencies) == {0.1}


def test_two_jobs_find_what_one_finds() -> None:
    condition = dataclasses.replace(SMALL, deadline=1.5)
    one, two = (repr(evaluate([condition], 3, jobs)) for jobs in (1, 2))
    assert one == two


def test_paraphrases_are_sentences_of_the_held_out_split() -> None:
    still = dataclasses.replace(SMALL, backend="hold", deadline=0.2)
    said = {
        split: [r.instruction for r in evaluate([dataclasses.replace(still, split=split)], 4)]
        for split in ("placements", "paraphrases")
    }
    seeds = {
        split: [r.seed for r in evaluate([dataclasses.replace(still, split=split)], 2)]
        for split in ("placements", "paraphrases", "train")
    }
    assert said["placements"] != said["paraphrases"]
    assert seeds["placements"] == seeds["paraphrases"]
    assert not set(seeds["train"]) & set(seeds["placements"])


def test_a_chain_counts_instructions_until_the_first_that_fails() -> None:
    whole = evaluate([dataclasses.replace(SMALL, task="chain")], 1)[0]
    assert whole.success and whole.progress == 1.0 and whole.time_to_success is not None
    assert whole.done == 5
    part = evaluate([dataclasses.replace(SMALL, task="chain", backend="hold", deadline=1.0)], 1)[0]
    assert not part.success and part.progress == 0.0 and part.done == 0


def test_the_command_writes_its_records_and_refuses_nonsense(tmp_path: Path, capsys) -> None:
    file = tmp_path / "new" / "e.json"
    common = ["evaluate", "--robot", "franka_droid", "--width", "48", "--episodes", "2"]
    assert (
        main(
            [
                *common,
                "--policy",
                "still=hold",
                "--deadline",
                "0.5",
                "--json",
                str(file),
                "--picture",
                str(tmp_path / "e.png"),
            ]
        )
        == 0
    )
    written = json.loads(file.read_text())
    assert len(written["records"]) == 2 and written["summaries"][0]["policy"] == "still"
    assert "still" in capsys.readouterr().out and (tmp_path / "e.png").stat().st_size > 1000
    for wrong, named in [
        (["--policy", "magic"], "magic"),
        (["--policy", "wam,steps=2"], "NAME:=VALUE"),
        (["--policy", "wam"], "no model for franka_droid comes with the package"),
        (["--cadence", "often"], "often"),
        (["--policy", "hold", "hold"], "'hold, async, touch, placements' is asked for twice"),
        (["--cadence", "sync", "sync"], "is asked for twice"),
        (["--task", "juggle"], "juggle"),
        (["--split", "none"], "none"),
        (["--seed", "-1"], "seeds start at 0"),
        (["--deadline", "0"], "deadline 0 must be above 0"),
        (["--mishaps", "2"], "a share of the episodes, 0 to 1"),
        (["--json", str(tmp_path)], "is a folder"),
        (["--picture", str(file / "p.png")], "cannot be written"),
        (["--picture", str(tmp_path / "p.xyz")], "name a .png, .pdf, .svg file"),
        (["--robot", "nobody"], "nobody"),
    ]:
        assert main([*common, *wrong]) == 2
        assert named in capsys.readouterr().err


@pytest.mark.parametrize("jobs", [1, 2])
def test_what_was_found_before_it_broke_off_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], jobs: int
) -> None:
    pytest.importorskip("torch")
    file = tmp_path / "e.json"
    line = ["evaluate", "--robot", "franka_droid", "--width", "48", "--episodes", "2"]
    line += ["--jobs", str(jobs), "--deadline", "0.3", "--json", str(file)]
    # The second policy turns out not to be there once the first has been judged.
    nowhere = f"wam,checkpoint:={tmp_path / 'nowhere'}"
    assert main([*line, "--policy", "hold", nowhere]) == 1
    said = capsys.readouterr()
    assert "nowhere" in said.err and "broken off after 2 of 4 episodes" in said.out
    written = json.loads(file.read_text())
    assert not written["whole"] and len(written["records"]) == 2
    assert "broken off" in said.out


def test_stopping_an_evaluation_keeps_its_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "e.json"
    episode, count = Evaluator.episode, iter(range(9))

    def stopped(self: Evaluator, index: int) -> object:
        if next(count) == 3:
            raise KeyboardInterrupt
        return episode(self, index)

    monkeypatch.setattr(Evaluator, "episode", stopped)
    line = ["evaluate", "--robot", "franka_droid", "--width", "48", "--deadline", "0.3"]
    line += ["--episodes", "2", "--policy", "hold", "b=hold", "--json", str(file)]
    assert main(line) == 130
    assert "broken off after 3 of 4 episodes" in capsys.readouterr().out
    assert [r["policy"] for r in json.loads(file.read_text())["records"]] == ["hold", "hold", "b"]


def test_a_chain_may_be_disturbed(monkeypatch: pytest.MonkeyPatch) -> None:
    chained = dataclasses.replace(SMALL, task="chain", backend="hold", deadline=0.2)
    met: list[int] = []
    run = Rollout.run

    def watched(self: Rollout, *args: Any, **more: Any) -> Any:
        met.append(len(more["disturbances"]))
        return run(self, *args, **more)

    monkeypatch.setattr(Rollout, "run", watched)
    seeds = [
        [r.seed for r in evaluate([dataclasses.replace(chained, mishaps=share)], 2)]
        for share in (0.0, 1.0)
    ]
    assert met == [0, 0, 1, 1] and seeds[0] == seeds[1]


def test_policies_on_the_command_line() -> None:
    assert policy_of("hold") == ("hold", "hold", {})
    given = policy_of("fast=wam,checkpoint:=a/b,steps:=1")
    assert given == ("fast", "wam", {"checkpoint": "a/b", "steps": "1"})
