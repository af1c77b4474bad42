"""The `wam` command."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from wam_ros.contract.data import CADENCES
from wam_ros.wam import cli as wam_cli

EPILOG = """\
examples:
  wam demo                              watch the simulated G1 touch a block
  wam launch agibot_g1                  start the whole graph; Ctrl-C ends it
  wam say "touch the green block with the right hand"
  wam status                            live view of policy and executor
  wam estop                             stop now; stays stopped until reset
"""


def parser() -> argparse.ArgumentParser:
    """Build the command line."""
    top = argparse.ArgumentParser(
        prog="wam",
        description="Run a World-Action Model on a robot through ROS 2.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    sub = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    p = sub.add_parser("launch", help="start the graph of a robot under our own supervisor")
    p.add_argument("robot", help="agibot_g1, franka_droid, yam, or a contract file")
    p.add_argument("arguments", nargs="*", metavar="NAME:=VALUE", help="as for `ros2 launch`")
    p.add_argument("--show-args", action="store_true", help="list the arguments and exit")
    p = sub.add_parser("say", help="give the robot an instruction")
    p.add_argument("text", help="for example: touch the red block with the left hand")
    sub.add_parser("stop", help="clear the instruction; the arm comes to a hold")
    sub.add_parser("estop", help="stop at once and latch")
    p = sub.add_parser("status", help="what policy and executor are doing")
    p.add_argument("--once", action="store_true", help="print once instead of a live view")
    p.add_argument("--json", metavar="FILE", help="write the states to FILE (with --once)")
    _demo_parser(sub)
    p = sub.add_parser("doctor", help="what is installed, what is missing, what to type")
    p.add_argument("--json", metavar="FILE", help="write the findings to FILE")
    wam_cli.add_parser(sub)
    for p in sub.choices.values():
        p.add_argument("--namespace", default="wam", help="namespace of the graph (default: wam)")
    return top


def _demo_parser(sub: Any) -> None:
    p = sub.add_parser("demo", help="simulate, say one sentence, report what happened")
    p.add_argument("--robot", default="agibot_g1")
    p.add_argument("--instruction", help="default: touch the red block (with the left hand)")
    p.add_argument("--policy", default="scripted", choices=("scripted",))
    p.add_argument("--cadence", default="async", choices=CADENCES)
    p.add_argument("--latency", type=float, default=0.1, help="seconds per chunk (default 0.1)")
    p.add_argument("--seed", type=int, default=0, help="placement of the blocks")
    p.add_argument("--deadline", type=float, default=60.0, help="seconds until it counts as failed")
    p.add_argument("--out", type=Path, default=Path("demo_out"), help="where results go")
    p.add_argument("--gl", default="osmesa", choices=("osmesa", "egl"))
    p.add_argument("--json", metavar="FILE", help="also write the summary to FILE")


def main(argv: list[str] | None = None) -> int:
    """Entry point; 0 on success, 1 when it did not work out, 2 on wrong usage."""
    args = parser().parse_args(argv)
    if args.command in wam_cli.COMMANDS:
        return wam_cli.run(args)
    from wam_ros.bringup import BringupError
    from wam_ros.contract import ContractError

    try:
        return int(_COMMANDS[args.command](args))
    except (BringupError, ContractError, RuntimeError) as err:
        print(f"wam {args.command}: {err}", file=sys.stderr)
        return 2 if isinstance(err, ValueError) else 1
    except KeyboardInterrupt:
        return 130


def _launch(args: argparse.Namespace) -> int:
    from wam_ros.bringup import ARGUMENTS, BringupError, processes, unknowns
    from wam_ros.contract import load_contract
    from wam_ros.supervisor import Supervisor

    if args.show_args:
        for a in ARGUMENTS:
            choices = f" ({', '.join(a.choices)})" if a.choices else ""
            print(f"  {a.name}:={a.default}\n      {a.description}{choices}")
        return 0
    given = {"namespace": args.namespace}
    for text in args.arguments:
        name, sep, value = text.partition(":=")
        if not sep:
            raise BringupError(f"'{text}' is not of the form NAME:=VALUE")
        given[name] = value
    specs = processes(args.robot, given)
    if given.get("sim") == "false":
        for line in unknowns(load_contract(args.robot)):
            print(f"not known, not used: {line}")
        print("disarmed: call the `arm` service when the robot may move")
    stopping: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda n, _: stopping.append(n))
    supervisor = Supervisor(specs)
    print(f"running {', '.join(supervisor.pids)}; Ctrl-C brings the arm to a hold and ends it")
    try:
        while not stopping:
            supervisor.poll()
            time.sleep(0.1)
    finally:
        supervisor.stop()
    return 0


def _client(args: argparse.Namespace) -> Any:
    from wam_ros.nodes.client import GraphClient

    client = GraphClient(args.namespace)
    if not client.wait_for_graph():
        client.close()
        raise RuntimeError(
            f"no graph answers under /{args.namespace} on ROS_DOMAIN_ID "
            f"{os.environ.get('ROS_DOMAIN_ID', '0')}; start one with `wam launch agibot_g1`"
        )
    return client


def _say(args: argparse.Namespace) -> int:
    client = _client(args)
    try:
        heard = client.say(args.text)
        client.spin(0.8)
        reason = client.policy.reason
    finally:
        client.close()
    if not heard:
        raise RuntimeError("the policy node did not echo the instruction")
    print(f"policy: {reason}" if reason else f"policy: '{args.text}'" if args.text else "holding")
    return 1 if "cannot understand" in reason else 0


def _stop(args: argparse.Namespace) -> int:
    args.text = ""
    return _say(args)


def _estop(args: argparse.Namespace) -> int:
    client = _client(args)
    try:
        stopped = client.estop()
    finally:
        client.close()
    print(
        "stopped and latched; call the `reset` service, then `arm`" if stopped else "NOT CONFIRMED"
    )
    return 0 if stopped else 1


def _status(args: argparse.Namespace) -> int:
    from wam_ros.status_view import as_json, live, render

    client = _client(args)
    try:
        if not args.once:
            live(client)
            return 0
        client.spin(0.3)
        render(client)
        if args.json:
            from wam_ros.demo import write_json

            write_json(args.json, as_json(client))
    finally:
        client.close()
    return 0


def _demo(args: argparse.Namespace) -> int:
    from wam_ros.demo import DemoOptions, run, write_json

    # Without this, SIGTERM would end us at once and leave the graph running.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    hands = "" if args.robot == "franka_droid" else " with the left hand"
    options = DemoOptions(
        robot=args.robot,
        instruction=args.instruction or f"touch the red block{hands}",
        policy=args.policy,
        cadence=args.cadence,
        latency=args.latency,
        seed=args.seed,
        deadline=args.deadline,
        out=args.out,
        gl=args.gl,
    )
    summary = run(options)
    if args.json:
        write_json(args.json, summary)
    where = f"{options.out}/ has summary.json, views.png and joints.png"
    if summary["success"]:
        print(
            f"done in {summary['time_to_success_s']} s, {summary['final_distance_m'] * 100:.1f} cm "
            f"from the block ({summary['policy_kind']}); {where}"
        )
        return 0
    print(f"not done: {summary['refused'] or 'the deadline passed'}; {where}", file=sys.stderr)
    return 1


def _doctor(args: argparse.Namespace) -> int:
    from wam_ros.doctor import as_json, examine, report

    findings = examine()
    print(report(findings))
    if args.json:
        from wam_ros.demo import write_json

        write_json(args.json, as_json(findings))
    return 1 if any(f.level == "missing" for f in findings) else 0


_COMMANDS = {
    "launch": _launch,
    "say": _say,
    "stop": _stop,
    "estop": _estop,
    "status": _status,
    "demo": _demo,
    "doctor": _doctor,
}

if __name__ == "__main__":
    sys.exit(main())
