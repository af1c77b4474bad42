"""`wam demo`: the simulated robot obeys one sentence."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from typing import Any

from wam_ros.contract import load_contract
from wam_ros.contract.data import CADENCES


def add_parser(sub: Any) -> None:
    """Add demo."""
    p = sub.add_parser("demo", help="simulate, say one sentence, report what happened")
    p.add_argument("--robot", default="agibot_g1")
    p.add_argument("--instruction", help="default: touch the red block (with the left hand)")
    p.add_argument("--then", default="", metavar="TEXT", help="say this on the way, and judge it")
    p.add_argument(
        "--disturb",
        choices=("move", "push", "dark"),
        help="on the way, move the block, push the arm it is about, or turn down the light",
    )
    p.add_argument("--disturb-after", type=float, default=0.3, help="seconds until --disturb (0.3)")
    p.add_argument("--then-after", type=float, default=1.0, help="seconds until --then (1.0)")
    p.add_argument(
        "--policy",
        choices=("scripted", "wam"),
        help="default: wam for robots whose model comes with the package, else scripted",
    )
    p.add_argument("--checkpoint", type=Path, help="another model's folder for --policy wam")
    p.add_argument("--cadence", choices=CADENCES, help="default: sliding for wam, else async")
    p.add_argument("--latency", type=float, default=0.1, help="seconds per scripted chunk (0.1)")
    p.add_argument("--seed", type=int, default=1, help="placement of the blocks, default 1")
    p.add_argument("--deadline", type=float, default=60.0, help="seconds until it counts as failed")
    p.add_argument("--out", type=Path, default=Path("demo_out"), help="where results go")
    p.add_argument("--gl", default="osmesa", choices=("osmesa", "egl"))
    p.add_argument("--json", metavar="FILE", help="also write the summary to FILE")


def run(args: argparse.Namespace) -> int:
    """Run the demo; 0 only when the robot succeeded."""
    from wam_ros.bringup import default_policy
    from wam_ros.demo import DemoOptions
    from wam_ros.demo import run as run_demo
    from wam_ros.jsonfile import write_json
    from wam_ros.resources import shipped_model

    robot = load_contract(args.robot).robot
    policy = args.policy or ("wam" if args.checkpoint else default_policy(robot))
    if policy == "scripted" and args.policy is None and shipped_model(robot) is not None:
        print("PyTorch is not here (`make model` installs it): the scripted teacher drives")
    # Without this, SIGTERM would end us at once and leave the graph running.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    hands = "" if args.robot == "franka_droid" else " with the left hand"
    options = DemoOptions(
        robot=args.robot,
        instruction=args.instruction or f"touch the red block{hands}",
        policy=policy,
        then=args.then,
        then_after=args.then_after,
        disturb=args.disturb or "",
        disturb_after=args.disturb_after,
        checkpoint=str(args.checkpoint.resolve()) if args.checkpoint else "",
        cadence=args.cadence or ("sliding" if policy == "wam" else "async"),
        latency=args.latency,
        seed=args.seed,
        deadline=args.deadline,
        out=args.out,
        gl=args.gl,
    )
    summary = run_demo(options)
    if args.json:
        write_json(args.json, summary)
    where = f"{options.out}/ has {', '.join(['summary.json', *summary['pictures']])}"
    if summary["success"]:
        print(
            f"done in {summary['time_to_success_s']} s, {summary['final_distance_m'] * 100:.1f} cm "
            f"from the block ({summary['policy_kind']}); {where}"
        )
        return 0
    print(f"not done: {summary['refused'] or 'the deadline passed'}; {where}", file=sys.stderr)
    return 1
