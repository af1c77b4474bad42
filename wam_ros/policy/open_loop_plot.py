"""Draw an open-loop run: error over the horizon, per key, and chunks beside what was commanded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wam_ros.contract.model import Contract
from wam_ros.policy.open_loop import BASELINES, Calls
from wam_ros.policy.open_loop_figures import MOVED, ranges

_SHOWN = 4
_INK, _GREY, _RED = "#1b1b1b", "#9a9a9a", "#c8102e"
_STYLES = {
    "policy": {"color": _RED, "lw": 2.2},
    "hold the state": {"color": _INK, "lw": 1.2, "ls": "--"},
    "hold the command": {"color": _INK, "lw": 1.2, "ls": ":"},
    "recorded states": {"color": _GREY, "lw": 1.2},
}


def draw(
    contract: Contract, calls: Sequence[Calls], summary: dict[str, Any], title: str, path: Path
) -> None:
    """Write the figure; the suffix of ``path`` says the format (png, svg, pdf).

    Raises
    ------
    ValueError
        For a suffix that matplotlib does not know.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = _most_moved(contract, calls)
    figure = Figure(figsize=(11, 4.2 + 1.9 * len(shown)), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(1 + len(shown), 2, height_ratios=[2.0] + [1.0] * len(shown))
    _horizon(figure.add_subplot(grid[0, 0]), summary)
    _keys(figure.add_subplot(grid[0, 1]), summary)
    for i, (joint, recording) in enumerate(shown):
        axes = figure.add_subplot(grid[1 + i, :])
        _trace(axes, contract, recording, joint, legend=i == 0)
    figure.suptitle(title, fontsize=12)
    figure.savefig(path, dpi=110)


def _most_moved(contract: Contract, calls: Sequence[Calls]) -> list[tuple[str, Calls]]:
    """The joints that moved most, each with the recording it did so in; two of a key at most."""
    spread = np.array([ranges([c]) for c in calls])
    found = []
    for key in contract.action:
        columns = [contract.action_names.index(n) for n in key.joints]
        best = np.nan_to_num(spread[:, columns]).max(axis=0)
        for i in np.argsort(-best)[:2]:
            if best[i] > MOVED:
                where = int(np.nan_to_num(spread[:, columns[i]]).argmax())
                found.append((float(best[i]), key.joints[i], calls[where]))
    found.sort(key=lambda f: -f[0])
    return [(joint, recording) for _, joint, recording in found[:_SHOWN]]


def _horizon(axes: Any, summary: dict[str, Any]) -> None:
    for name in ("policy", *BASELINES):
        values = np.array(summary["rows"][name]["horizon"], dtype=np.float64)
        t = np.arange(len(values)) * summary["step_period"]
        axes.plot(t, 100 * values, label=name, **_STYLES[name])
    axes.set_xlabel("how far ahead (s)")
    axes.set_ylabel("mean error (% of joint's range)")
    axes.set_ylim(bottom=0)
    axes.set_title("How the error grows along a chunk", fontsize=10, loc="left")
    axes.legend(fontsize=8, frameon=False)
    _plain(axes)


def _keys(axes: Any, summary: dict[str, Any]) -> None:
    rows = summary["rows"]
    keys = [k for k, v in rows["policy"]["keys"].items() if v["normalised"] is not None]
    at = np.arange(len(keys))
    for shift, name, colour in ((-0.2, "policy", _RED), (0.2, "hold the state", _GREY)):
        values = [rows[name]["keys"][k]["normalised"] for k in keys]
        bars = axes.barh(
            at + shift, [100 * (np.nan if v is None else v) for v in values], 0.36,
            color=colour, label=name,
        )  # fmt: skip
        axes.bar_label(bars, fmt="%.1f", fontsize=7, padding=2)
    axes.set_yticks(at, [k.removeprefix("action.") for k in keys], fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel("mean error (% of joint's range)")
    axes.set_title("Per key, whole chunks", fontsize=10, loc="left")
    axes.legend(fontsize=8, frameon=False, ncols=2, loc="lower right", bbox_to_anchor=(1.0, 0.98))
    _plain(axes)


def _trace(axes: Any, contract: Contract, calls: Calls, joint: str, legend: bool) -> None:
    """One joint of one recording: the command as a line, every chunk as a thread off it."""
    column, period = contract.action_names.index(joint), contract.rates.step_period
    axes.plot(calls.t, calls.action[:, column], color=_INK, lw=1.6, label="recorded command")
    # Of overlapping chunks so many that single ones can be told apart.
    every = max(1, round(len(calls.rows) * len(calls.predicted[0]) * period / (2 * calls.t[-1])))
    for i in range(0, len(calls.rows), every):
        chunk = calls.predicted[i][:, column]
        t = calls.t[calls.rows[i]] + np.arange(len(chunk)) * period
        axes.plot(t, chunk, color=_RED, lw=1.0, alpha=0.8, label=None if i else "predicted chunk")
        axes.plot(t[:1], chunk[:1], ".", color=_RED, ms=4)
    axes.set_ylabel(joint, fontsize=8)
    what = f"{calls.name}: \u201c{calls.instruction}\u201d, time in s"
    axes.set_title(what, fontsize=8, loc="left")
    axes.tick_params(labelsize=8)
    if legend:
        axes.legend(
            fontsize=8, frameon=False, ncols=2, loc="lower right", bbox_to_anchor=(1.0, 0.96)
        )
    _plain(axes)


def _plain(axes: Any) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(alpha=0.25, lw=0.5)
