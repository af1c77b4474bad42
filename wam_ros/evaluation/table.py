"""Summaries as text of at most 100 columns, and as JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from wam_ros.evaluation.record import plain
from wam_ros.evaluation.summary import Comparison, Interval, Summary

_HEAD = ("policy", "cadence", "n", "success % (95 %)", "progress", "time s", "path m",
         "jerk", "latency ms", "holds")  # fmt: skip
_WIDTHS = (16, 8, 4, 18, 8, 7, 6, 7, 11, 5)


def table(summaries: Sequence[Summary], comparisons: Sequence[Comparison] = ()) -> str:
    """One block per task and split; rows keep the order of ``summaries``.

    Times are medians of the successes; latency is p50/p95 over all chunks.
    """
    lines: list[str] = []
    places = dict.fromkeys((s.task, s.split) for s in summaries)
    for task, split in places:
        lines += [f"{task}, {split}", _row(_HEAD), _row(tuple("-" * w for w in _WIDTHS))]
        lines += [
            _row(
                (
                    s.policy,
                    s.cadence,
                    str(s.episodes),
                    _percent(s.success),
                    _number(s.progress.value, 2),
                    _number(s.time_to_success.value, 2),
                    _number(s.path_length.value, 2),
                    _number(s.rms_jerk.value, 1),
                    _latency(s),
                    _number(s.holds.value, 1),
                )
            )
            for s in summaries
            if (s.task, s.split) == (task, split)
        ]
        lines.append("")
    for c in comparisons:
        lines.append(
            f"{c.task}, {c.split}, {c.cadence}: {c.first} against {c.second} on {c.pairs} scenes"
        )
        lines.append(
            f"  only the first {c.only_first}, only the second {c.only_second}, both {c.both}, "
            f"neither {c.neither}; exact McNemar p = {c.p_value:.3g}"
        )
    return "\n".join(lines).rstrip() + "\n"


def to_dict(summaries: Sequence[Summary], comparisons: Sequence[Comparison] = ()) -> dict[str, Any]:
    """Everything the table shows and the intervals it has no room for; NaN becomes None."""
    return {
        "summaries": [plain(asdict(s)) for s in summaries],
        "comparisons": [plain(asdict(c)) for c in comparisons],
    }


def _row(cells: Sequence[str]) -> str:
    text = []
    for i, (cell, width) in enumerate(zip(cells, _WIDTHS, strict=True)):
        short = cell if len(cell) <= width else cell[: width - 1] + "~"
        text.append(short.ljust(width) if i < 2 else short.rjust(width))
    return " ".join(text).rstrip()


def _number(value: float, digits: int) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:.{digits}f}" if abs(value) < 1e4 else f"{value:.1e}"


def _percent(i: Interval) -> str:
    return f"{100 * i.value:.1f} ({100 * i.low:.0f}-{100 * i.high:.0f})"


def _latency(s: Summary) -> str:
    if math.isnan(s.latency_p50.value):
        return "-"
    return f"{1e3 * s.latency_p50.value:.0f}/{1e3 * s.latency_p95.value:.0f}"
