"""Start a graph, speak to it, watch it."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from typing import Any


def add_parser(sub: Any) -> None:
    """Add launch, say, stop, estop, reset, arm, disarm and status."""
    p = sub.add_parser("launch", help="start the graph of a robot under our own supervisor")
    p.add_argument("robot", help="agibot_g1, franka_droid, yam, or a contract file")
    p.add_argument("arguments", nargs="*", metavar="NAME:=VALUE", help="as for `ros2 launch`")
    p.add_argument("--show-args", action="store_true", help="list the arguments and exit")
    namespace(p)
    p = sub.add_parser("say", help="give the robot an instruction")
    p.add_argument("text", help="for example: touch the red block with the left hand")
    namespace(p)
    for name, text in (
        ("stop", "clear the instruction; the arm comes to a hold"),
        ("estop", "stop at once and latch"),
        ("reset", "release a latched e-stop; the arm stays disarmed"),
        ("arm", "take the measured state as reference and follow chunks"),
        ("disarm", "send no more commands"),
    ):
        namespace(sub.add_parser(name, help=text))
    p = sub.add_parser("status", help="what policy and executor are doing")
    p.add_argument("--once", action="store_true", help="print once instead of a live view")
    p.add_argument("--json", metavar="FILE", help="write the states to FILE (with --once)")
    namespace(p)


def namespace(p: argparse.ArgumentParser) -> None:
    """Add --namespace."""
    p.add_argument("--namespace", default="wam", help="namespace of the graph (default: wam)")


def run(args: argparse.Namespace) -> int:
    """Run one of the commands; 0 on success, 1 when it did not work out."""
    return _COMMANDS[args.command](args)


def _launch(args: argparse.Namespace) -> int:
    from wam_ros.bringup import BringupError, processes, unknowns
    from wam_ros.contract import load_contract
    from wam_ros.launch_arguments import ARGUMENTS
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
        "stopped and latched; release it with `wam reset`, then `wam arm`"
        if stopped
        else "NOT CONFIRMED by the executor: use the robot's own e-stop"
    )
    return 0 if stopped else 1


def _service(args: argparse.Namespace) -> int:
    client = _client(args)
    try:
        if args.command == "reset":
            done, message = client.reset()
        else:
            done, message = client.arm(args.command == "arm")
    finally:
        client.close()
    print(message, file=sys.stdout if done else sys.stderr)
    return 0 if done else 1


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
            from wam_ros.jsonfile import write_json

            write_json(args.json, as_json(client))
    finally:
        client.close()
    return 0


_COMMANDS = {
    "launch": _launch,
    "say": _say,
    "stop": _stop,
    "estop": _estop,
    "reset": _service,
    "arm": _service,
    "disarm": _service,
    "status": _status,
}
