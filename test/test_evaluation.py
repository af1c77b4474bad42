"""Statistics against numbers worked out by hand, and reports that say what the records say."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from wam_ros.evaluation import (
    EpisodeRecord,
    compare,
    draw,
    read_records,
    summarise,
    table,
    to_dict,
    write_records,
)
from wam_ros.evaluation.statistics import bootstrap, mcnemar, wilson


def record(seed: int, success: bool = True, policy: str = "small", **more) -> EpisodeRecord:
    base = EpisodeRecord(
        policy=policy, cadence="sliding", task="touch", split="held_out", seed=seed,
        instruction="touch the red block", success=success, progress=1.0 if success else 0.4,
        time_to_success=2.0 + 0.1 * seed if success else None, path_length=0.3, rms_jerk=20.0,
        chunk_latencies=(0.1, 0.2), holds=1, hold_seconds=0.5,
    )  # fmt: skip
    return replace(base, **more)


def test_wilson_by_hand() -> None:
    # 8 of 10: centre (0.8 + 3.8415/20) / 1.38415 = 0.7168, half width 0.2266.
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    # No success in n: the upper end is z^2 / (n + z^2).
    assert wilson(0, 20) == pytest.approx((0.0, 3.841459 / 23.841459), abs=1e-6)
    assert wilson(20, 20) == pytest.approx((20 / 23.841459, 1.0), abs=1e-6)
    assert wilson(0, 0) == (0.0, 1.0)
    with pytest.raises(ValueError, match="3 successes in 2 trials"):
        wilson(3, 2)


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_agrees_with_scipy(case: tuple[int, int]) -> None:
    interval = binomtest(*case).proportion_ci(0.95, method="wilson")
    assert wilson(*case) == pytest.approx((interval.low, interval.high), abs=1e-9)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_estimate_and_mirrors(case: tuple[int, int]) -> None:
    k, n = case
    low, high = wilson(k, n)
    assert 0.0 <= low <= k / n <= high <= 1.0
    assert wilson(n - k, n) == pytest.approx((1 - high, 1 - low))


def test_mcnemar_by_hand() -> None:
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(5, 0) == pytest.approx(2 / 32)
    assert mcnemar(1, 8) == pytest.approx(2 * (1 + 9) / 512)
    assert mcnemar(8, 1) == mcnemar(1, 8)
    assert mcnemar(3, 3) == 1.0
    with pytest.raises(ValueError):
        mcnemar(-1, 2)


def test_bootstrap_repeats_and_keeps_groups_together() -> None:
    mean = lambda v: np.mean(v, axis=-1)  # noqa: E731
    assert bootstrap([[3.0]] * 4, mean) == (3.0, 3.0)
    values = [[float(v)] for v in range(20)]
    low, high = bootstrap(values, mean)
    assert bootstrap(values, mean) == (low, high)
    # The mean of 20 such values has a standard error of 5.77 / sqrt(20) = 1.29.
    assert low == pytest.approx(9.5 - 1.96 * 1.29, abs=0.3)
    assert high == pytest.approx(9.5 + 1.96 * 1.29, abs=0.3)
    # Two episodes of equal values: drawn whole, a resample is all 0, all 1 or half and half.
    assert bootstrap([[0.0] * 50, [1.0] * 50], mean) == (0.0, 1.0)
    assert all(math.isnan(x) for x in bootstrap([[]], mean))


def test_summary_by_hand() -> None:
    latencies = [(0.1, 0.3), (0.1, 0.3), (0.5,), ()]
    records = [record(i, i != 3, chunk_latencies=latencies[i], holds=i) for i in range(4)]
    (s,) = summarise(records)
    assert (s.episodes, s.successes, s.success.value) == (4, 3, 0.75)
    assert (s.success.low, s.success.high) == wilson(3, 4)
    assert s.progress.value == pytest.approx((1 + 1 + 1 + 0.4) / 4)
    assert s.time_to_success.value == pytest.approx(2.1)  # median of 2.0, 2.1, 2.2
    assert s.latency_p50.value == pytest.approx(0.3)  # of 0.1 0.1 0.3 0.3 0.5
    assert s.holds.value == pytest.approx(1.5) and s.errors == 0
    assert s.progress.low <= s.progress.value <= s.progress.high


def test_nothing_succeeded_has_no_time() -> None:
    (s,) = summarise([record(i, False, chunk_latencies=()) for i in range(3)])
    assert s.success.value == 0.0 and math.isnan(s.time_to_success.value)
    text = table([s])
    assert " - " in text and "nan" not in text
    data = json.loads(json.dumps(to_dict([s]), allow_nan=False))
    assert data["summaries"][0]["time_to_success"]["value"] is None


def test_groups_are_kept_apart_and_in_order() -> None:
    records = [
        record(1), record(1, policy="teacher"), record(1, cadence="sync"),
        record(1, split="train"), record(2),
    ]  # fmt: skip
    found = [(s.policy, s.cadence, s.split, s.episodes) for s in summarise(records)]
    assert found == [
        ("small", "sliding", "held_out", 2), ("teacher", "sliding", "held_out", 1),
        ("small", "sync", "held_out", 1), ("small", "sliding", "train", 1),
    ]  # fmt: skip
    with pytest.raises(ValueError, match="seed 1 occurs twice for small"):
        summarise([record(1), record(1)])


def test_comparison_pairs_by_seed() -> None:
    small = [record(s, s < 8) for s in range(10)]
    still = [record(s, s in (0, 9), policy="hold") for s in range(1, 12)]
    (c,) = compare([*small, *still], "small", "hold")
    # Shared are 1..9: small alone wins 1..7, hold alone 9, neither 8.
    assert (c.pairs, c.both, c.only_first, c.only_second, c.neither) == (9, 0, 7, 1, 1)
    assert c.p_value == pytest.approx(2 * (1 + 8) / 256)
    with pytest.raises(ValueError, match="nothing to compare"):
        compare(small, "small", "teacher")


def test_record_must_agree_with_itself() -> None:
    with pytest.raises(ValueError, match="success without a time"):
        record(0, time_to_success=None)
    with pytest.raises(ValueError, match=r"progress 1\.5"):
        record(0, progress=1.5)


def test_records_survive_the_file(tmp_path) -> None:
    records = [record(0, final_distance=0.01, done=1), record(1, False, error="gate tripped")]
    assert math.isnan(records[1].final_distance)
    write_records(tmp_path / "r.jsonl", records)
    assert repr(read_records(tmp_path / "r.jsonl")) == repr(records)
    (tmp_path / "bad.jsonl").write_text('{"policy": "x"}\n')
    with pytest.raises(ValueError, match=r"bad\.jsonl, line 1: .*missing"):
        read_records(tmp_path / "bad.jsonl")


def test_table_fits_and_shows_the_numbers(tmp_path) -> None:
    many = [
        record(s, (s + k) % 3 != 0, policy=p, cadence=c, task=t, path_length=12.3, rms_jerk=98765.4)
        for k, p in enumerate(("teacher", "small", "a-policy-with-a-long-name"))
        for c in ("sync", "async", "sliding")
        for t in ("touch", "bowl")
        for s in range(12)
    ]  # fmt: skip
    summaries = summarise(many)
    text = table(summaries, compare(many, "teacher", "small"))
    assert max(map(len, text.splitlines())) <= 100
    for part in ("66.7 (39-86)", "150/200", "a-policy-with-a~", "9.9e+04"):
        assert part in text, part
    assert "exact McNemar p = " in text
    draw(tmp_path / "p.png", summaries)
    assert (tmp_path / "p.png").stat().st_size > 10_000
    with pytest.raises(ValueError, match="no episodes"):
        draw(tmp_path / "none.png", [])
