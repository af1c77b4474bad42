"""Smoothness against fidelity: five ways from the same chunks to 500 Hz joint commands.

Streams: synthetic ones with the intention known (three cadences, three latencies, model-like
noise), recorded ones (benchmarks/data), and the three scenarios of example 19 of
ros2_control_demos. Every method runs over a grid of its own parameter; the plot shows a curve each.

The others are shown as they are, without our limiter behind them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from common import arguments, finish
from motion_methods import METHODS, Method
from motion_metrics import measure
from motion_streams import Stream, example_19, recorded, synthetic

from wam_ros.contract import load_contract
from wam_ros.contract.model import Contract

DATA = Path(__file__).resolve().parent / "data"
DEFAULT = 0.1
"""Our default smoothing; the table marks it."""


def streams(seed: int, quick: bool) -> Iterator[tuple[Contract, Stream]]:
    """Every stream with the robot it is for."""
    droid, g1 = load_contract("franka_droid"), load_contract("agibot_g1")
    for cadence in ("sync", "async", "sliding"):
        for latency in (0.15,) if quick else (0.15, 0.6, 1.1):
            yield droid, synthetic(droid, cadence, latency, seed, 8.0 if quick else 20.0)
    for scenario in ("single", "sequential", "overlapping"):
        yield droid, example_19(droid, scenario, seed)
    for file in [] if quick else sorted(DATA.glob("chunks_*.npz")):
        yield g1, recorded(g1, file)


def run(contract: Contract, stream: Stream, quick: bool) -> list[dict[str, Any]]:
    """All methods over their grids on one stream."""
    times = np.arange(0.0, stream.duration, 1.0 / contract.rates.control)
    rows = []
    for method in METHODS:
        grid = _few(method) if quick else method.grid
        for value in grid:
            row: dict[str, Any] = {"method": method.name, "parameter": value}
            try:
                commands = method.run(contract, stream, times, value)
                row |= measure(contract, stream, times, commands)
            except RuntimeError as err:  # Ruckig gives up on some moving targets
                row["failed"] = str(err).strip().splitlines()[0][:80]
            rows.append(row)
    return rows


def _few(method: Method) -> tuple[float, ...]:
    return (*method.grid[:: max(1, len(method.grid) // 3)],)


def compare(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Our default beside the calmest other point that lags and errs no more than it does."""
    ours = next(r for r in rows if r["method"] == METHODS[0].name and r["parameter"] == DEFAULT)
    result: dict[str, Any] = {"ours": ours["jerk_rms"], "lag_s": ours["lag_s"]}
    others = [r for r in rows if r["method"] != METHODS[0].name and r.get("jerk_rms", 0.0) > 0.0]
    for name, key in (("lag", "lag_s"), ("error", "error_rms_rad")):
        fair = [r for r in others if r[key] <= ours[key] + (0.005 if key == "lag_s" else 0.0)]
        best = min(fair, key=lambda r: r["jerk_rms"], default=None)
        result[f"best_other_at_equal_{name}"] = best and {
            k: best[k] for k in ("method", "parameter", "jerk_rms", "violating_ticks")
        }
        result[f"jerk_ratio_at_equal_{name}"] = best and round(
            ours["jerk_rms"] / best["jerk_rms"], 3
        )
    return result


def show(stream: Stream, rows: list[dict[str, Any]], summary: dict[str, Any]) -> None:
    """Print one stream's table."""
    print(f"\n{stream.name}: {len(stream.arrivals)} chunks in {stream.duration:.1f} s")
    print(
        "  method                     param    lag ms  error mrad  jerk rms    p95       max"
        "   acc max  seam mrad  stall %  violations"
    )
    for r in rows:
        mark = "*" if r["method"] == METHODS[0].name and r["parameter"] == DEFAULT else " "
        if "failed" in r:
            print(f" {mark}{r['method']:25s} {r['parameter']:6g}    failed: {r['failed']}")
            continue
        print(
            f" {mark}{r['method']:25s} {r['parameter']:6g}  {1e3 * r['lag_s']:8.0f}"
            f"  {1e3 * r['error_rms_rad']:10.1f}  {r['jerk_rms']:8.4g}  {r['jerk_p95']:8.4g}"
            f"  {r['jerk_max']:8.3g}  {r['acceleration_max']:8.3g}"
            f"  {1e3 * r['seam_jump_rad']:9.3g}  {100 * r['stalled_share']:7.1f}"
            f"  {r['violating_ticks']:6d}"
        )
    for what in ("lag", "error"):
        best = summary[f"best_other_at_equal_{what}"]
        if best is None:
            print(f"  no other method reaches our {what}")
        else:
            print(
                f"  at equal {what} the calmest other is {best['method']} ({best['parameter']:g}): "
                f"our jerk is {summary[f'jerk_ratio_at_equal_{what}']:.2f} of its"
            )


def main() -> None:
    """Run everything; --out takes the plot and a Markdown table."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--out", type=Path, help="folder for motion_quality.png and .md")
    options = parser.parse_args()
    results = []
    for contract, stream in streams(options.seed, options.quick):
        rows = run(contract, stream, options.quick)
        summary = compare(rows)
        show(stream, rows, summary)
        results.append(
            {"stream": stream.name, "robot": contract.robot, "summary": summary, "rows": rows}
        )
    mine = [r for s in results for r in s["rows"] if r["method"] == METHODS[0].name]
    print(
        f"\nwam_ros over {len(mine)} runs: {sum(r['violating_ticks'] for r in mine)} violating "
        f"ticks, largest seam jump {1e3 * max(r['seam_jump_rad'] for r in mine):.3g} mrad"
    )
    if options.out:
        from motion_plot import details, draw, table

        options.out.mkdir(parents=True, exist_ok=True)
        draw(results, options.out / "motion_quality.png")
        (options.out / "motion_quality.md").write_text(
            f"{table(results)}\nOurs / the calmest other at equal lag:\n\n{details(results)}"
        )
    result: dict[str, Any] = {"streams": results}
    finish(options, result)
    if options.json:  # a line per run keeps the file small
        options.json.write_text(json.dumps(result, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
