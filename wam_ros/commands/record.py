"""Record episodes, turn them into a data set, play them back."""

from __future__ import annotations

import argparse
import importlib.util
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from wam_ros.commands.graph import namespace

_NEEDS = {
    "record": ("mcap",),
    "dataset": ("mcap", "mcap_ros2", "pyarrow", "av"),
    "replay": ("mcap", "mcap_ros2"),
}


def add_parser(sub: Any) -> None:
    """Add record, dataset and replay."""
    p = sub.add_parser("record", help="record episodes, with a keyboard view")
    p.add_argument("robot", nargs="?", help="start a recorder for it; without, use a running one")
    p.add_argument("arguments", nargs="*", metavar="NAME:=VALUE", help="parameters of the recorder")
    p.add_argument("--out", type=Path, default=Path("episodes"), help="folder for the bags")
    p.add_argument("--task", default="", help="instruction (default: the policy's current one)")
    p.add_argument("--compression", default="none", choices=("none", "zstd"))
    p.add_argument("--sim", action="store_true", help="the robot is the simulation")
    p.add_argument("--auto", action="store_true", help="an episode for every instruction")
    p.add_argument("--repair", type=Path, metavar="DIR", help="mend cut bags in DIR and exit")
    namespace(p)
    p = sub.add_parser("dataset", help="turn bags into a data set for DreamZero's trainer")
    p.add_argument("bags", nargs="*", type=Path, metavar="BAGS", help="bags, or folders of bags")
    p.add_argument("--out", type=Path, help="folder of the data set")
    p.add_argument("--only", default="all", choices=("all", "success", "human"))
    p.add_argument("--task", default="", help="instruction for every episode, instead of theirs")
    p.add_argument("--robot", default="", help="contract, for bags that carry none")
    p.add_argument("--size", metavar="WxH", help="size of the videos (default: the model's view)")
    p.add_argument("--max-gap", type=float, default=0.25, help="seconds (default 0.25)")
    p.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    p.add_argument("--lerobot", default="v2.1", choices=("v2.0", "v2.1"), help="format version")
    p.add_argument("--rules", action="store_true", help="print when an episode is refused")
    p.add_argument("--json", metavar="FILE", help="write the outcome to FILE")
    p = sub.add_parser("replay", help="play a bag into the graph")
    p.add_argument("bag", type=Path)
    p.add_argument(
        "--what",
        default="observations",
        choices=("observations", "actions"),
        help="observations for the policy, or actions through the executor",
    )
    p.add_argument("--rate", type=float, default=1.0, help="speed (observations only)")
    namespace(p)


def run(args: argparse.Namespace) -> int:
    """Run one of the commands; 0 on success, 1 when it did not work out, 2 on wrong usage."""
    missing = [n for n in _NEEDS[args.command] if importlib.util.find_spec(n) is None]
    if missing:
        print(
            f"wam {args.command} needs {', '.join(missing)}: pip install 'wam_ros[record]'",
            file=sys.stderr,
        )
        return 2
    return {"record": _record, "dataset": _dataset, "replay": _replay}[args.command](args)


def _record(args: argparse.Namespace) -> int:
    if args.repair:
        return _repair(args.repair)
    from wam_ros.bringup import ProcessSpec
    from wam_ros.contract import load_contract
    from wam_ros.nodes.record_client import RecordClient
    from wam_ros.recording.keyboard import Keys
    from wam_ros.supervisor import Supervisor

    specs = []
    if args.robot:
        load_contract(args.robot)
        parameters: dict[str, Any] = {
            "robot": args.robot, "sim": args.sim, "out": str(args.out.resolve()),
            "auto": args.auto, "compression": args.compression,
        }  # fmt: skip
        for text in args.arguments:
            name, sep, value = text.partition(":=")
            if not sep:
                raise RuntimeError(f"'{text}' is not of the form NAME:=VALUE")
            parameters[name] = value
        specs = [ProcessSpec("recorder", args.namespace, parameters)]
    for number in (signal.SIGTERM, signal.SIGHUP):  # a closed terminal must not leave a recorder
        signal.signal(number, lambda n, _: sys.exit(128 + n))
    log = args.out / "recorder.log" if specs else None
    if log:
        log.parent.mkdir(parents=True, exist_ok=True)
    client = RecordClient(args.namespace)
    keys = Keys(client, args.task)
    if specs and client.wait(1.5):
        client.close()
        raise RuntimeError(
            f"a recorder runs under /{args.namespace} already: use it with `wam record`, without a "
            "robot's name, or choose another --namespace"
        )
    supervisor = Supervisor(specs, log=log, say=keys.say)
    try:
        if not _found(client, supervisor):
            raise RuntimeError(
                f"no recorder answers under /{args.namespace}; "
                + (f"see {log}" if log else "name the robot to start one, or launch record:=true")
            )
        done = _view(client, keys, supervisor)
    finally:
        client.close()
        supervisor.stop()
    saved = int(client.status.get("episodes", "0"))
    print(f"{saved} episode{'' if saved == 1 else 's'} saved" + (f" in {args.out}" if log else ""))
    return done


def _found(client: Any, supervisor: Any, seconds: float = 20.0) -> bool:
    """Whether a recorder answers; ends at once when ours cannot run."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        supervisor.poll()
        if client.wait(0.5):
            return True
    return False


def _view(client: Any, keys: Any, supervisor: Any) -> int:
    """Keys in, state out, until q; without a terminal, only the state."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from wam_ros.recording import screen
    from wam_ros.recording.keyboard import pressed, raw_keys

    console = Console(highlight=False)
    if not (sys.stdin.isatty() and console.is_terminal):
        print("no terminal: showing the state only; use the services start_episode, stop_episode")
        while True:
            client.spin(2.0)
            supervisor.poll()
            print(screen.plain(keys, client.status), flush=True)
    with raw_keys(), Live(console=console, auto_refresh=False, screen=True) as live:
        while True:
            supervisor.poll()
            client.spin(0.05)
            for key in pressed():
                if not keys.press(key):
                    return 0
            shown = screen.lines(keys, client.status, console.width, console.height)
            text = Text("\n", no_wrap=True).join(Text(t, style) for t, style in shown)
            live.update(text, refresh=True)


def _repair(folder: Path) -> int:
    from wam_ros.recording.repair import repair, repair_all

    single = bool(list(folder.glob("*.mcap")))
    one = repair(folder) if single else None
    done = ([one] if one else []) if single else repair_all(folder)
    for bag in done:
        print(f"{bag.folder}: {bag.messages} messages, {bag.seconds:.1f} s; {bag.lost_bytes} bytes")
    print(f"{len(done)} bags repaired")
    return 0


def _dataset(args: argparse.Namespace) -> int:
    from wam_ros.recording.convert import Options
    from wam_ros.recording.rules import Limits

    limits = Limits(max_gap=args.max_gap)
    if args.rules:
        print(limits.text(24))
        return 0
    if not args.bags or args.out is None:
        print("wam dataset: name the bags, and the data set's folder with --out", file=sys.stderr)
        return 2
    size = None
    if args.size:
        try:
            width, height = (int(x) for x in args.size.lower().split("x"))
        except ValueError:
            print(f"wam dataset: --size {args.size} is not WxH", file=sys.stderr)
            return 2
        if min(width, height) < 2 or width % 2 or height % 2:
            print(f"wam dataset: --size {args.size}: videos have even sides", file=sys.stderr)
            return 2
        size = (width, height)
    options = Options(args.only, args.task.strip(), args.robot, size, limits)
    return _convert(args, options)


def _convert(args: argparse.Namespace, options: Any) -> int:
    from rich.console import Console

    from wam_ros.commands.progress import Counter
    from wam_ros.jsonfile import write_json
    from wam_ros.recording.bags import find_bags
    from wam_ros.recording.dataset import assemble, check_target, convert_all
    from wam_ros.recording.gear import DatasetError
    from wam_ros.recording.reader import BagError
    from wam_ros.recording.report import write_report

    console = Console(stderr=True, highlight=False)
    started = time.monotonic()
    try:
        check_target(args.out)
        bags = find_bags(args.bags)
        with Counter("converting", len(bags), console) as counter:

            def progress(done: int, _: int, summary: dict[str, Any]) -> None:
                counter.advance()
                for reason in summary["refused"]:
                    counter.say(f"refused {summary['bag']}: {reason}")
                for remark in summary["remarks"]:
                    counter.say(f"note    {summary['bag']}: {remark}")

            summaries = convert_all(bags, args.out, options, args.jobs, progress)
        try:
            outcome = assemble(summaries, args.out, args.lerobot)
        finally:
            write_report(summaries, args.out, options.limits)
    except (DatasetError, BagError) as err:
        print(f"wam dataset: {err}", file=sys.stderr)
        return 1
    outcome["seconds"] = round(time.monotonic() - started, 2)
    outcome["gigabytes"] = round(sum(s.get("bytes", 0) for s in summaries) / 1e9, 4)
    print(
        f"{outcome['episodes']} episodes, {outcome['frames']} rows, {outcome['refused']} refused; "
        f"{args.out} is ready, open {args.out / 'report.html'}"
    )
    if args.json:
        write_json(args.json, {**outcome, "summaries": [_short(s) for s in summaries]})
    return 0


def _short(summary: dict[str, Any]) -> dict[str, Any]:
    keys = ("bag", "verdict", "instruction", "refused", "remarks", "episode_index")
    return {k: summary[k] for k in keys if k in summary}


def _replay(args: argparse.Namespace) -> int:
    from wam_ros.nodes.replay_player import play

    return play(args.bag, args.what, args.rate, args.namespace)
