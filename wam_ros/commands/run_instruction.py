"""`wam run`: one instruction, followed until it ends; `wam confirm`: the operator's verdict."""

from __future__ import annotations

import argparse
import math
import signal
import sys
from typing import Any

from wam_ros.commands.graph import namespace

_UNSURE = "; told to hold, which is NOT CONFIRMED: look, or use `wam estop`"


def add_parser(sub: Any) -> None:
    """Add run and confirm."""
    p = sub.add_parser(
        "run",
        help="run an instruction until it succeeds, stalls or runs out of time",
        description="Exit code 0 when it succeeded, 1 for any other outcome. Ctrl-C cancels it: "
        "the arm comes to a hold.",
    )
    p.add_argument("text", help="for example: touch the red block")
    p.add_argument("--deadline", type=_seconds, default=0.0, help="seconds (default: no limit)")
    p.add_argument("--json", metavar="FILE", help="write the outcome to FILE")
    namespace(p)
    p = sub.add_parser("confirm", help="say that the instruction being run has succeeded")
    namespace(p)


def _seconds(text: str) -> float:
    value = float(text)
    if not 0.0 <= value < math.inf:
        raise argparse.ArgumentTypeError("must be 0 (no limit) or more seconds")
    return value


def run(args: argparse.Namespace) -> int:
    """Run one of the commands; 0 on success, 1 when it did not work out."""
    from wam_ros.commands.graph import _client

    client = _client(args)
    try:
        if args.command == "run":
            return _run(args, client)
        done, message = client.confirm()
        print(message, file=sys.stdout if done else sys.stderr)
        return 0 if done else 1
    finally:
        client.close()


def _run(args: argparse.Namespace, client: Any) -> int:
    from wam_ros.jsonfile import write_json
    from wam_ros.nodes.run_client import RunGoal

    stopping: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda n, _: stopping.append(n))
    goal = RunGoal(client)
    try:
        if not goal.send(args.text, args.deadline):
            goal.give_up()
            raise RuntimeError(
                f"the policy node does not answer on the action run_instruction{_UNSURE}"
            )
        shown = -1.0
        while goal.result is None:
            client.spin(0.05)
            if stopping and not goal.cancel():
                raise RuntimeError("NOT CONFIRMED that it was cancelled: use `wam estop`")
            if goal.lost:
                goal.give_up()
                raise RuntimeError(f"the policy node went away: the run is lost{_UNSURE}")
            if goal.feedback and goal.feedback.elapsed >= shown + 1.0:
                shown = math.floor(goal.feedback.elapsed)
                print(_line(goal.feedback), flush=True)
        result, outcome = goal.result, goal.outcome
        assert outcome is not None
    finally:
        goal.close()
    summary = {
        "instruction": args.text,
        "outcome": outcome.name.lower(),
        "message": result.message,
        "duration_s": round(float(result.duration), 2),
        "deadline_s": args.deadline or None,
        "chunks": int(goal.feedback.chunks) if goal.feedback else 0,
        "policy": client.policy.backend,
        "model": client.policy.model,
        "cadence": client.policy.cadence,
    }
    if args.json:
        write_json(args.json, summary)
    succeeded = summary["outcome"] == "succeeded"
    print(
        f"{summary['outcome']} after {result.duration:.1f} s: {result.message}",
        file=sys.stdout if succeeded else sys.stderr,
    )
    return 0 if succeeded else 1


def _line(feedback: Any) -> str:
    """One line of progress; a bar only where a judge says how far it is."""
    bar = ""
    if math.isfinite(feedback.progress):
        filled = round(20 * float(feedback.progress))
        bar = f"  [{'#' * filled}{'.' * (20 - filled)}]"
    idle = f", idle {feedback.idle:.0f} s" if feedback.idle >= 1.0 else ""
    return f"{feedback.elapsed:5.1f} s{bar}  {feedback.chunks} chunks  {feedback.status}{idle}"
