"""What a demo leaves behind: a summary, a sheet of views, plots of joints and imagination."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from wam_ros.contract import load_contract
from wam_ros.demo.film import Film, draw
from wam_ros.demo.trace import Trace
from wam_ros.jsonfile import write_json

_SHEET_ROWS = 4


def write_report(out: Path, summary: dict[str, Any], trace: Trace, film: Film) -> None:
    """Write the files into ``out``; a picture of imagination only where there was one."""
    tag = load_contract(summary["robot"]).embodiment
    (out / "imagined.png").unlink(missing_ok=True)  # of an earlier run
    summary["imagined_frames"] = len(film.imagined)
    values = [v for _, v in film.surprise]
    summary["surprise_p50"] = round(float(np.median(values)), 3) if values else None
    title = f'"{summary["instruction"]}": what {summary["model"]} imagined, and what was seen then'
    if draw(out / "imagined.png", film, tag, title):
        summary["pictures"].append("imagined.png")
    write_json(out / "summary.json", summary)
    if trace.frames:
        cv2.imwrite(str(out / "views.png"), sheet(trace.frames, summary))
    if len(trace.times) > 2:
        _plot(out / "joints.png", summary, trace)


def sheet(
    frames: Sequence[tuple[float, Mapping[str, np.ndarray]]], summary: dict[str, Any]
) -> np.ndarray:
    """A BGR sheet: one row per moment, one column per view, with a caption on each row."""
    picks = np.linspace(0, len(frames) - 1, min(_SHEET_ROWS, len(frames))).round().astype(int)
    rows = []
    for i in picks:
        t, views = frames[i]
        cells = []
        for name, view in views.items():
            cell = cv2.resize(view[:, :, ::-1], None, fx=1.5, fy=1.5)
            cells.append(_caption(cell, f"{name}  {t:.1f} s"))
        rows.append(np.hstack(cells))
    body = np.vstack(rows)
    head = np.full((34, body.shape[1], 3), 32, np.uint8)
    outcome = "done" if summary["success"] else "not done"
    text = f'"{summary["instruction"]}": {outcome} ({summary["policy_kind"]})'
    cv2.putText(
        head, text, (10, 23), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (240, 240, 240), 1, cv2.LINE_AA
    )
    return np.vstack([head, body])


def _caption(cell: np.ndarray, text: str) -> np.ndarray:
    cell = np.ascontiguousarray(cell)
    cv2.rectangle(cell, (0, 0), (9 * len(text) + 8, 20), (32, 32, 32), -1)
    cv2.putText(
        cell, text, (5, 15), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (240, 240, 240), 1, cv2.LINE_AA
    )
    return cell


def _plot(path: Path, summary: dict[str, Any], trace: Trace) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    t = np.array(trace.times)
    reference, measured = np.array(trace.reference), np.array(trace.measured)
    span = np.nanmax(reference, axis=0) - np.nanmin(reference, axis=0)
    shown = [i for i in np.argsort(-span)[:7] if span[i] > 0.01] or [0]
    fig, axis = plt.subplots(figsize=(9, 4.5), constrained_layout=True)
    for colour, i in enumerate(shown):
        axis.plot(t, reference[:, i], color=f"C{colour}", label=trace.names[i])
        axis.plot(t, measured[:, i], color=f"C{colour}", linestyle=":", linewidth=2)
    axis.set_xlabel("time since the instruction (s)")
    axis.set_ylabel("joint position (rad)")
    axis.set_title(
        f"commanded (solid) and measured (dotted), {summary['cadence']} cadence, "
        f"{summary['latency_p50_s'] * 1e3:.0f} ms per chunk"
    )
    axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    axis.grid(alpha=0.3)
    fig.savefig(path, dpi=110)
    plt.close(fig)
