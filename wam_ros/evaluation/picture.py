"""One picture: policies side by side, cadences in colour, tasks and splits as columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wam_ros.evaluation.summary import Interval, Summary

# Colours of Okabe and Ito, told apart by colour-blind readers too.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
_ROWS: tuple[tuple[str, float, Callable[[Summary], Interval]], ...] = (
    ("success (%)", 100.0, lambda s: s.success),
    ("time to success (s, median)", 1.0, lambda s: s.time_to_success),
    ("rms jerk (rad/s³)", 1.0, lambda s: s.rms_jerk),
    ("chunk latency (ms, p50)", 1e3, lambda s: s.latency_p50),
)


def draw(path: Path, summaries: Sequence[Summary], title: str = "") -> None:
    """Draw all summaries into one PNG; ValueError when there are none."""
    if not summaries:
        raise ValueError("nothing to draw: there are no episodes")
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    places = list(dict.fromkeys((s.task, s.split) for s in summaries))
    policies = list(dict.fromkeys(s.policy for s in summaries))
    cadences = list(dict.fromkeys(s.cadence for s in summaries))
    fig, grid = plt.subplots(
        len(_ROWS),
        len(places),
        figsize=(1.6 + max(3.2, 0.5 * len(policies) * len(cadences)) * len(places), 9.0),
        sharex="col",
        sharey="row",
        squeeze=False,
        constrained_layout=True,
    )
    for column, (task, split) in enumerate(places):
        here = [s for s in summaries if (s.task, s.split) == (task, split)]
        count = max(s.episodes for s in here)
        grid[0, column].set_title(f"{task}, {split.replace('_', ' ')} (n ≤ {count})")
        for row, (label, scale, pick) in enumerate(_ROWS):
            axis = grid[row, column]
            _bars(axis, here, policies, cadences, scale, pick)
            if column == 0:
                axis.set_ylabel(label)
    for axis in grid[0]:
        axis.set_ylim(0, 105)
    handles = [plt.Rectangle((0, 0), 1, 1, color=_COLOURS[i % 6]) for i in range(len(cadences))]
    fig.legend(handles, cadences, loc="outside lower center", ncols=len(cadences), frameon=False)
    fig.suptitle(title or "Policies and cadences; whiskers are 95 % intervals")
    fig.savefig(path, dpi=110)
    plt.close(fig)


def _bars(
    axis: Any,
    here: Sequence[Summary],
    policies: Sequence[str],
    cadences: Sequence[str],
    scale: float,
    pick: Callable[[Summary], Interval],
) -> None:
    width = 0.8 / len(cadences)
    for s in here:
        i, k = policies.index(s.policy), cadences.index(s.cadence)
        x = i + (k - (len(cadences) - 1) / 2.0) * width
        interval = pick(s)
        if np.isnan(interval.value):
            axis.text(x, 0.0, "–", ha="center", va="bottom", color="#666")
            continue
        value, low, high = (scale * v for v in (interval.value, interval.low, interval.high))
        axis.bar(x, value, 0.9 * width, color=_COLOURS[k % len(_COLOURS)])
        axis.errorbar(
            x, value, [[max(0.0, value - low)], [max(0.0, high - value)]], color="#222", capsize=2
        )
    axis.set_xticks(range(len(policies)), policies, rotation=20 if len(policies) > 5 else 0)
    axis.set_xlim(-0.6, len(policies) - 0.4)
    axis.grid(axis="y", alpha=0.3)
    axis.set_axisbelow(True)
