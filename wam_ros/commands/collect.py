"""Collect demonstrations in simulation, faster than real time."""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import time
from pathlib import Path
from typing import Any


def add_parser(sub: Any) -> None:
    """Add collect."""
    p = sub.add_parser("collect", help="let the teacher fill bags, faster than real time")
    p.add_argument("--robot", default="agibot_g1")
    p.add_argument("--episodes", type=int, default=10)
    p.add_argument("--seed", type=int, default=0, help="collections of two seeds share no scene")
    p.add_argument("--out", type=Path, default=Path("episodes"), help="folder for the bags")
    p.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="processes")
    p.add_argument("--task", default="touch", help="kinds to draw from: touch,bowl,play")
    p.add_argument("--split", default="train", choices=("train", "held_out"))
    p.add_argument("--mishaps", type=float, default=0.0, help="share of disturbed episodes, 0..1")
    p.add_argument(
        "--nudges", type=float, default=0.0, help="share with a push of the hand at its block, 0..1"
    )
    p.add_argument("--chain", type=float, default=0.0, help="share with several sentences, 0..1")
    p.add_argument("--cadence", default="async", choices=("async", "sync", "sliding"))
    p.add_argument("--latency", type=float, default=0.1, help="seconds a call costs, default 0.1")
    p.add_argument("--width", type=int, default=128, help="pixels of the pictures, default 128")
    p.add_argument("--pictures", default="raw", choices=("raw", "png", "jpeg"))
    p.add_argument("--compression", default="zstd", choices=("none", "zstd"))
    p.add_argument("--camera-rate", type=float, help="Hz; default: the contract's")
    p.add_argument("--state-rate", type=float, default=60.0, help="Hz of joint states, default 60")
    p.add_argument("--control-rate", type=float, help="Hz of the executor; default: the contract's")
    p.add_argument("--deadline", type=float, default=12.0, help="longest episode, s, default 12")
    p.add_argument("--linger", type=float, default=0.3, help="s to go on after success")
    p.add_argument("--nominal", action="store_true", help="vary placements only")
    p.add_argument("--json", metavar="FILE", help="write what was collected to FILE")


def run(args: argparse.Namespace) -> int:
    """Run it; 0 on success, 1 when it did not work out, 2 on wrong usage."""
    missing = [n for n in ("mcap", "mujoco", "zstandard") if importlib.util.find_spec(n) is None]
    if missing:
        print(
            f"wam collect needs {', '.join(missing)}: pip install 'wam_ros[sim,record]'",
            file=sys.stderr,
        )
        return 2
    if args.episodes < 1 or args.jobs < 1:
        print("wam collect: --episodes and --jobs must be at least 1", file=sys.stderr)
        return 2
    os.environ.setdefault("MUJOCO_GL", "osmesa")
    from wam_ros.commands.progress import Counter
    from wam_ros.jsonfile import write_json
    from wam_ros.nodes.collector import CollectError, Collection, collect

    collection = Collection(
        robot=args.robot, seed=args.seed, split=args.split,
        tasks=tuple(t.strip() for t in args.task.split(",")), mishaps=args.mishaps,
        cadence=args.cadence, latency=args.latency, width=args.width, pictures=args.pictures,
        compression=args.compression, camera_rate=args.camera_rate, state_rate=args.state_rate,
        control_rate=args.control_rate, deadline=args.deadline, randomise=not args.nominal,
        nudges=args.nudges, chain=args.chain, linger=args.linger,
    )  # fmt: skip
    started = time.monotonic()
    try:
        with Counter("collecting", args.episodes) as counter:

            def progress(summary: dict[str, Any]) -> None:
                counter.advance()
                if summary.get("error"):
                    counter.say(f"episode {summary['index']}: {summary['error']}")

            summaries = collect(collection, args.episodes, args.out, args.jobs, progress)
    except CollectError as err:
        print(f"wam collect: {err}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on where it was")
        return 130
    figures = _figures(summaries, time.monotonic() - started, args.out)
    print(
        f"{figures['episodes']} episodes ({figures['skipped']} were there), "
        f"{figures['failures']} failures; {figures['seconds']:.0f} s simulated in "
        f"{figures['wall']:.0f} s ({figures['speed']:.1f} times real time), "
        f"{figures['gigabytes']:.2f} GB in {args.out}"
    )
    if args.json:
        write_json(args.json, {**figures, "summaries": summaries})
    return 0


def _figures(summaries: list[dict[str, Any]], wall: float, out: Path) -> dict[str, Any]:
    seconds = sum(s["seconds"] for s in summaries)
    size = sum(f.stat().st_size for f in out.glob("ep*/*"))
    return {
        "episodes": len(summaries),
        "skipped": sum(s["skipped"] for s in summaries),
        "failures": sum(s["verdict"] == "failure" for s in summaries),
        "seconds": round(seconds, 2),
        "wall": round(wall, 2),
        "speed": round(seconds / wall, 2) if wall > 0 else 0.0,
        "gigabytes": round(size / 1e9, 4),
    }
