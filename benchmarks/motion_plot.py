"""The picture and the Markdown table of `motion_quality.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

STYLE = {
    "wam_ros": ("#0b5fa5", "o", 2.4),
    "newest chunk, linear": ("#9aa0a6", "s", 1.2),
    "C2 spline, rests at end": ("#d9822b", "^", 1.2),
    "temporal ensembling": ("#7a9e3f", "D", 1.2),
    "Ruckig follower": ("#b0413e", "v", 1.2),
}


SHOWN = ("sync 0.6 s", "async 0.15 s", "async 0.6 s", "sliding 0.15 s", "sliding 0.6 s")


def draw(results: list[dict[str, Any]], file: Path) -> None:
    """Lag (top) and error (bottom) against RMS jerk for the synthetic streams."""
    shown = [r for r in results if r["stream"] in SHOWN]
    columns = len(shown)
    figure, axes = plt.subplots(
        2, columns, figsize=(2.6 * columns + 0.6, 6.4), sharex=True, sharey="row", squeeze=False
    )
    for column, result in enumerate(shown):
        for row, (key, scale) in enumerate((("lag_s", 1e3), ("error_rms_rad", 1e3))):
            axis = axes[row][column]
            for name, (colour, marker, width) in STYLE.items():
                points = [
                    (r["jerk_rms"], scale * r[key])
                    for r in result["rows"]
                    if r["method"] == name and "jerk_rms" in r
                ]
                axis.plot(
                    *zip(*points, strict=True),
                    color=colour,
                    marker=marker,
                    markersize=4 if name != "wam_ros" else 5,
                    linewidth=width,
                    label=name,
                    zorder=3 if name == "wam_ros" else 2,
                )
            axis.set_xscale("log")
            axis.set_xlim(0.5, 2e6)
            axis.set_yscale(
                "symlog" if row == 0 else "log", **({"linthresh": 100} if row == 0 else {})
            )
            axis.grid(True, which="major", color="#e3e5e8", linewidth=0.7)
            axis.spines[["top", "right"]].set_visible(False)
        axes[0][column].set_title(result["stream"], fontsize=10)
        axes[0][column].set_ylim(-20, 1600)
        axes[0][column].set_yticks(
            [0, 25, 50, 100, 300, 1000], ["0", "25", "50", "100", "300", "1000"]
        )
        axes[1][column].set_ylim(15, 400)
        axes[1][column].set_yticks([20, 50, 100, 200], ["20", "50", "100", "200"])
        axes[1][column].minorticks_off()
        axes[1][column].set_xlabel("RMS jerk (rad/s³)")
    axes[0][0].set_ylabel("lag (ms)")
    axes[1][0].set_ylabel("error to the intention (mrad, rms)")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncol=len(labels), frameon=False, fontsize=9)
    figure.suptitle(
        "Lower left is better: each curve is one method over its own parameter", y=0.995
    )
    figure.tight_layout(rect=(0, 0.05, 1, 0.99))
    figure.savefig(file, dpi=130)
    plt.close(figure)


def table(results: list[dict[str, Any]]) -> str:
    """A line per stream: our default and the calmest other at equal lag and at equal error."""
    lines = [
        "| stream | our RMS jerk | lag ms | seam mrad | violations | calmest other at equal lag "
        "(violations) | ratio | at equal error (violations) | ratio |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        s = result["summary"]
        mine = _row(result, "wam_ros", s["ours"])
        cells = [
            result["stream"],
            f"{s['ours']:.3g}",
            f"{1e3 * s['lag_s']:.0f}",
            f"{1e3 * mine['seam_jump_rad']:.2g}",
            str(mine["violating_ticks"]),
        ]
        for what in ("lag", "error"):
            best = s[f"best_other_at_equal_{what}"]
            if best is None:
                cells += ["none gets there", ""]
            else:
                cells += [
                    f"{best['method']} {best['parameter']:g}: {best['jerk_rms']:.3g} "
                    f"({best['violating_ticks']})",
                    f"{s[f'jerk_ratio_at_equal_{what}']:.2f}",
                ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def details(results: list[dict[str, Any]]) -> str:
    """A line per stream: our default / the calmest other at equal lag, in every figure."""
    columns = (
        ("error mrad", "error_rms_rad", 1e3),
        ("jerk p95", "jerk_p95", 1.0),
        ("jerk max", "jerk_max", 1.0),
        ("acceleration max", "acceleration_max", 1.0),
        ("seam mrad", "seam_jump_rad", 1e3),
        ("stalled %", "stalled_share", 100.0),
    )
    lines = [
        "| stream | " + " | ".join(c for c, _, _ in columns) + " |",
        "|---|" + "---|" * len(columns),
    ]
    for result in results:
        summary = result["summary"]
        best = summary["best_other_at_equal_lag"]
        pair = [_row(result, "wam_ros", summary["ours"])]
        if best is not None:
            pair.append(_row(result, best["method"], best["jerk_rms"]))
        cells = (" / ".join(f"{scale * r[key]:.3g}" for r in pair) for _, key, scale in columns)
        lines.append(f"| {result['stream']} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _row(result: dict[str, Any], method: str, jerk_rms: float) -> dict[str, Any]:
    """The run of a method that has this RMS jerk."""
    rows = (r for r in result["rows"] if r["method"] == method)
    return next(r for r in rows if r.get("jerk_rms") == jerk_rms)
