"""From episode records to one row per policy, cadence, task and split."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from wam_ros.rollout.records import EpisodeRecord

Z = 1.959963984540054
"""Normal quantile of a two-sided 95 % interval."""


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Wilson's score interval of a share, 95 % (Wilson 1927).

    Raises
    ------
    ValueError
        ``trials`` is below 1, or ``successes`` outside 0..trials.
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes in {trials} trials")
    share = successes / trials
    scale = 1.0 + Z * Z / trials
    centre = (share + Z * Z / (2 * trials)) / scale
    half = Z / scale * math.sqrt(share * (1 - share) / trials + Z * Z / (4 * trials * trials))
    return max(0.0, centre - half), min(1.0, centre + half)


def summarise(records: Sequence[EpisodeRecord]) -> list[dict[str, Any]]:
    """One row per condition, in the order of the records.

    Times and path lengths are medians over the successful episodes, progress, jerk, holds are means
    over all; latencies are percentiles over all chunks. NaN where there is nothing.
    """
    groups: dict[tuple[str, str, str, str], list[EpisodeRecord]] = {}
    for r in records:
        groups.setdefault((r.task, r.split, r.policy, r.cadence), []).append(r)
    return [_row(key, found) for key, found in groups.items()]


def _row(key: tuple[str, str, str, str], found: list[EpisodeRecord]) -> dict[str, Any]:
    task, split, policy, cadence = key
    won = [r for r in found if r.success]
    times = [r.time_to_success for r in won if r.time_to_success is not None]
    latencies = [x for r in found for x in r.chunk_latencies]
    low, high = wilson(len(won), len(found))
    return {
        "task": task,
        "split": split,
        "policy": policy,
        "cadence": cadence,
        "episodes": len(found),
        "success": len(won) / len(found),
        "success_low": low,
        "success_high": high,
        "progress": float(np.mean([r.progress for r in found])),
        "done": float(np.mean([r.done for r in found])),
        "time_to_success_s": _median(times),
        "path_length_m": _median([r.path_length for r in won]),
        "rms_jerk": float(np.mean([r.rms_jerk for r in found])),
        "latency_p50_s": float(np.percentile(latencies, 50)) if latencies else math.nan,
        "latency_p95_s": float(np.percentile(latencies, 95)) if latencies else math.nan,
        "chunks": float(np.mean([len(r.chunk_latencies) for r in found])),
        "holds": float(np.mean([r.holds for r in found])),
        "hold_seconds": float(np.mean([r.hold_seconds for r in found])),
        "errors": sum(bool(r.error) for r in found),
    }


def _median(values: Sequence[float]) -> float:
    return float(np.median(values)) if values else math.nan


def _cell(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"


_HEAD = (
    "task", "split", "policy", "cadence", "episodes", "success (95 %)", "progress", "time s",
    "path m", "jerk", "latency p50/p95 ms", "holds", "held s",
)  # fmt: skip


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a Markdown table."""
    lines = ["| " + " | ".join(_HEAD) + " |", "|" + "---|" * len(_HEAD)]
    for r in rows:
        cells = [
            r["task"], r["split"], r["policy"], r["cadence"], str(r["episodes"]),
            f"{r['success']:.1%} ({r['success_low']:.1%} to {r['success_high']:.1%})",
            f"{r['progress']:.2f}", _cell(r["time_to_success_s"]), _cell(r["path_length_m"]),
            f"{r['rms_jerk']:.1f}",
            "-" if math.isnan(r["latency_p50_s"]) else
            f"{r['latency_p50_s'] * 1e3:.0f} / {r['latency_p95_s'] * 1e3:.0f}",
            f"{r['holds']:.1f}", f"{r['hold_seconds']:.2f}",
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
