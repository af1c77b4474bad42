"""Judge policies in simulation, over many scenes they have not seen."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import sys
import time
from pathlib import Path
from typing import Any

EPILOG = """\
a policy is [LABEL=]BACKEND[,NAME:=VALUE...], for example
  scripted   hold   wam,checkpoint:=weights/small   fast=wam,checkpoint:=weights/small,steps:=1
without a checkpoint, wam is the model that comes with the package
splits: placements (new scenes), paraphrases (new scenes and sentences), train (neither is new)
"""


PICTURES = (".png", ".pdf", ".svg")


def add_parser(sub: Any) -> None:
    """Add evaluate."""
    p = sub.add_parser(
        "evaluate",
        help="judge policies in simulation, with intervals",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("--robot", default="agibot_g1")
    p.add_argument("--task", nargs="+", default=["touch"], help="touch, bowl, chain")
    p.add_argument("--split", nargs="+", default=["placements"])
    p.add_argument("--policy", nargs="+", default=["scripted"], metavar="POLICY")
    p.add_argument("--cadence", nargs="+", default=["async"])
    p.add_argument("--episodes", type=int, default=200)
    p.add_argument("--seed", type=int, default=0, help="evaluations of two seeds share no scene")
    p.add_argument("--deadline", type=float, default=10.0, help="seconds per instruction")
    p.add_argument("--latency", type=float, help="seconds a call costs; default: as measured")
    p.add_argument("--period", type=float, default=1.0 / 7.0, help="between calls in sliding, s")
    p.add_argument("--width", type=int, default=320, help="pixels of the pictures, default 320")
    p.add_argument("--camera-delay", type=float, default=0.05, help="age of pictures, s")
    p.add_argument("--camera-rate", type=float, help="pictures per second; default: the contract's")
    p.add_argument("--mishaps", type=float, default=0.0, help="share of disturbed episodes, 0..1")
    p.add_argument("--nominal", action="store_true", help="vary placements only")
    p.add_argument("--jobs", type=int, default=1, help="processes; more blur measured latencies")
    p.add_argument("--json", metavar="FILE", help="write records and table to FILE")
    p.add_argument(
        "--picture", type=Path, metavar="FILE", help="draw the table (.png, .pdf or .svg)"
    )


def policy_of(text: str) -> tuple[str, str, dict[str, Any]]:
    """Label, backend and options of a policy on the command line.

    Raises
    ------
    ValueError
        The text is not of that form, or names no backend.
    """
    from wam_ros.policy.registry import BACKENDS

    first, *pairs = text.split(",")
    label, _, backend = first.rpartition("=")
    if backend not in BACKENDS:
        raise ValueError(f"unknown policy '{backend}'; there are {', '.join(BACKENDS)}")
    options: dict[str, Any] = {}
    for pair in pairs:
        name, sep, value = pair.partition(":=")
        if not sep or not name:
            raise ValueError(f"'{pair}' is not of the form NAME:=VALUE")
        options[name] = value
    return label or backend, backend, options


def conditions(args: argparse.Namespace) -> list[Any]:
    """Every combination that was asked for; ValueError names what is unknown."""
    from wam_ros.contract.data import CADENCES
    from wam_ros.rollout.evaluate import Condition

    for cadence in args.cadence:
        if cadence not in CADENCES:
            raise ValueError(f"unknown cadence '{cadence}'; there are {', '.join(CADENCES)}")
    if args.episodes < 1 or args.jobs < 1:
        raise ValueError("--episodes and --jobs must be at least 1")
    found = [
        Condition(
            label, backend, cadence, task, split, args.robot, args.seed,
            _with_model(backend, options, args.robot), args.latency,
            args.period, args.deadline, args.width, args.camera_delay, args.mishaps,
            not args.nominal, args.camera_rate,
        )
        for task in args.task
        for split in args.split
        for label, backend, options in map(policy_of, args.policy)
        for cadence in args.cadence
    ]  # fmt: skip
    named = [f"{c.label}, {c.cadence}, {c.task}, {c.split}" for c in found]
    for name in named:
        if named.count(name) > 1:
            raise ValueError(
                f"'{name}' is asked for twice; give policies labels of their own (LABEL=BACKEND)"
            )
    return found


def _with_model(backend: str, options: dict[str, Any], robot: str) -> dict[str, Any]:
    """Options in which ``wam`` without a checkpoint means the model that comes with the package."""
    if backend != "wam" or options.get("checkpoint"):
        return options
    from wam_ros.resources import shipped_model

    folder = shipped_model(robot)
    if folder is None:
        raise ValueError(
            f"no model for {robot} comes with the package: --policy wam,checkpoint:=FOLDER"
        )
    return {**options, "checkpoint": str(folder)}


def run(args: argparse.Namespace) -> int:
    """Run it; 0 on success, 1 when it broke off, 2 on wrong usage, 130 when it was stopped."""
    if importlib.util.find_spec("mujoco") is None:
        print("wam evaluate needs mujoco: pip install 'wam_ros[sim]'", file=sys.stderr)
        return 2
    os.environ.setdefault("MUJOCO_GL", "osmesa")
    from wam_ros.commands.progress import Counter
    from wam_ros.contract import load_contract
    from wam_ros.rollout.evaluate import evaluate

    try:
        load_contract(args.robot)
        wanted = conditions(args)
        if args.picture and args.picture.suffix not in PICTURES:
            raise ValueError(f"--picture {args.picture}: name a {', '.join(PICTURES)} file")
    except ValueError as err:
        print(f"wam evaluate: {err}", file=sys.stderr)
        return 2
    started = time.monotonic()
    records: list[Any] = []  # as they come; in order once all are there
    won: dict[str, list[bool]] = {}
    count, code = args.episodes * len(wanted), 1
    try:
        with Counter("evaluating", count) as counter:

            def progress(condition: Any, record: Any, error: str) -> None:
                name = f"{condition.label} {condition.cadence} {condition.task} {condition.split}"
                records.append(record)
                won.setdefault(name, []).append(record.success)
                rate = f"{sum(won[name])}/{len(won[name])}"
                counter.advance(f"{name}: {rate}")
                if error:
                    counter.say(f"{name}, seed {record.seed}: {error}")

            records = evaluate(wanted, args.episodes, args.jobs, progress)
        code = 0
    except KeyboardInterrupt:
        code = 130
    except (RuntimeError, ValueError, OSError) as err:
        print(f"wam evaluate: {err}", file=sys.stderr)
        code = 1
    finally:  # whatever ended it, hours of episodes are not lost
        if code:
            print(f"broken off after {len(records)} of {count} episodes")
        if records:
            _report(args, records, time.monotonic() - started, code == 0)
    return code


def _report(args: argparse.Namespace, records: list[Any], wall: float, whole: bool) -> None:
    """Print the table, every later policy compared with the first, and write what was asked for."""
    from dataclasses import asdict

    from wam_ros.evaluation import compare, draw, summarise, table, to_dict
    from wam_ros.jsonfile import write_json

    summaries = summarise(records)
    first, *others = dict.fromkeys(r.policy for r in records)
    comparisons = []
    for other in others:
        with contextlib.nullcontext() if whole else contextlib.suppress(ValueError):
            comparisons += compare(records, first, other)  # broken off, they may share no seed
    print(table(summaries, comparisons))
    title = f"{args.robot}, {args.episodes} episodes each, seed {args.seed}"
    title += "" if whole else ", broken off"
    print(f"{title}; {wall:.0f} s")
    if args.json:
        left_out = ("run", "json", "picture", "command")
        write_json(
            args.json,
            {
                "arguments": {k: v for k, v in vars(args).items() if k not in left_out},
                "wall_s": round(wall, 1),
                "whole": whole,
                **to_dict(summaries, comparisons),
                "records": [asdict(r) for r in records],
            },
        )
    if args.picture:
        args.picture.parent.mkdir(parents=True, exist_ok=True)
        draw(args.picture, summaries, title)
