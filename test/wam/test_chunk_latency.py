"""The latency benchmark counts and times what it says."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent.parent / "benchmarks"


@pytest.fixture
def latency(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import chunk_latency

    yield chunk_latency
    for name in ("chunk_latency", "common", "roofline"):
        sys.modules.pop(name, None)


def figures(latency: Any, *arguments: str) -> dict[str, Any]:
    common = ["--size", "tiny", "--encoders", "none", "--device", "cpu", "--dtype", "float32"]
    options = latency.options_parser().parse_args([*common, *arguments])
    found: dict[str, Any] = latency.measure(options)
    latency.show(found)
    return found


def test_sync_goes_through_the_cache_positions_and_resets(
    latency: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    found = figures(latency, "--chunks", "8")
    assert found["chunks"] == 8
    assert found["resets"] == 2
    assert {k: v["n"] for k, v in found["latency_by_cached_frames_ms"].items()} == dict.fromkeys(
        "1357", 2
    )
    assert found["computed_steps"] == {"min": 8, "max": 8}
    stages = found["stages_ms"]
    assert {"vae", "prefill", "denoise", "early", "idle"} <= set(stages)
    printed = capsys.readouterr().out
    assert "speed result, random weights" in printed
    assert "a reported figure takes 400" in printed


def test_work_counts_the_forwards_that_ran(latency: Any) -> None:
    one = figures(latency, "--chunks", "4", "--steps", "1")
    four = figures(latency, "--chunks", "4", "--steps", "4")
    off = figures(latency, "--chunks", "4", "--steps", "4", "--cfg", "off")
    work = [r["transformer_tflop_per_chunk"] for r in (one, four, off)]
    # With all savings: prefill and step of one branch; two prefills and 4 + 3 steps; 1 and 4.
    step, prefill = (work[2] - work[0]) / 3, work[0] - (work[2] - work[0]) / 3
    assert work[1] == pytest.approx(2 * prefill + 7 * step)
    assert 0 < prefill < step


@pytest.mark.parametrize("history", [0, 1])
def test_sliding_restarts_at_every_call(latency: Any, history: int) -> None:
    found = figures(
        latency, "--chunks", "3", "--steps", "1", "--cadence", "sliding", "--history", str(history)
    )
    assert set(found["latency_by_cached_frames_ms"]) == {str(1 + 2 * history)}
    assert ("open" in found["stages_ms"]) == bool(history)
    assert (found["achieved_tflops"] is None) == bool(history)
