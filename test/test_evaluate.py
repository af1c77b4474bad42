"""`wam evaluate`: the same scenes for every policy, honest records, a table with intervals."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from wam_ros.cli import main
from wam_ros.commands.evaluate import policy_of
from wam_ros.rollout.evaluate import Condition, evaluate
from wam_ros.rollout.records import EpisodeRecord
from wam_ros.rollout.summary import summarise, table, wilson

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
    assert whole.done == 5 and whole.success and whole.progress == 1.0
    part = evaluate([dataclasses.replace(SMALL, task="chain", backend="hold", deadline=1.0)], 1)[0]
    assert part.done == 0 and not part.success and part.progress == 0.0


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_agrees_with_scipy(case: tuple[int, int]) -> None:
    successes, trials = case
    interval = binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    assert wilson(successes, trials) == pytest.approx((interval.low, interval.high), abs=1e-9)


def record(**changes: object) -> EpisodeRecord:
    plain = EpisodeRecord(
        "p", "async", "touch", "placements", 1, "x", True, 1.0, 2.0, 0.3, 4.0, (0.1, 0.2), 1, 0.5
    )
    return dataclasses.replace(plain, **changes)  # type: ignore[arg-type]


def test_the_summary_says_what_the_records_say() -> None:
    lost = record(
        success=False, progress=0.2, time_to_success=None, chunk_latencies=(0.6,), holds=3
    )
    rows = summarise([record(), lost, record(policy="q", success=False, time_to_success=None)])
    assert [(r["policy"], r["episodes"]) for r in rows] == [("p", 2), ("q", 1)]
    assert rows[0]["success"] == 0.5 and rows[0]["progress"] == pytest.approx(0.6)
    assert rows[0]["time_to_success_s"] == 2.0 and math.isnan(rows[1]["time_to_success_s"])
    assert rows[0]["latency_p50_s"] == 0.2 and rows[0]["holds"] == 2.0
    assert "50.0% (9.5% to 90.5%)" in table(rows) and "nan" not in table(rows)


def test_the_command_writes_its_records_and_refuses_nonsense(tmp_path: Path, capsys) -> None:
    file = tmp_path / "e.json"
    common = ["evaluate", "--robot", "franka_droid", "--width", "48", "--episodes", "2"]
    assert main([*common, "--policy", "still=hold", "--deadline", "0.5", "--json", str(file)]) == 0
    written = json.loads(file.read_text())
    assert len(written["records"]) == 2 and written["table"][0]["policy"] == "still"
    assert "| still |" in capsys.readouterr().out
    for wrong, named in [
        (["--policy", "magic"], "magic"),
        (["--policy", "wam,steps=2"], "NAME:=VALUE"),
        (["--cadence", "often"], "often"),
        (["--task", "juggle"], "juggle"),
        (["--split", "none"], "none"),
    ]:
        assert main([*common, *wrong]) == 2
        assert named in capsys.readouterr().err


def test_policies_on_the_command_line() -> None:
    assert policy_of("hold") == ("hold", "hold", {})
    given = policy_of("fast=wam,checkpoint:=a/b,steps:=1")
    assert given == ("fast", "wam", {"checkpoint": "a/b", "steps": "1"})
