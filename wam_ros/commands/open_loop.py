"""``wam open-loop``: how close a backend comes to what was recorded. Needs no ROS."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path
from typing import Any

_NEEDS = ("mcap", "mcap_ros2")
_FORMATS = (".png", ".svg", ".pdf")


def add_parser(sub: Any) -> None:
    """Add the sub-command; imports nothing heavy."""
    p = sub.add_parser("open-loop", help="compare a policy's chunks with recorded actions")
    p.add_argument("bags", nargs="+", type=Path, metavar="BAG", help="bags, or folders of bags")
    p.add_argument("--policy", required=True, help="backend: wam, replay, hold, wam_serve, ...")
    p.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="launch argument of the backend, such as checkpoint=FOLDER (repeatable)",
    )
    p.add_argument("--cadence", default="sync", choices=("sync", "async", "sliding"))
    p.add_argument(
        "--latency", type=float, default=0.2, help="s that async calls come early (default 0.2)"
    )
    p.add_argument("--period", type=float, default=0.143, help="s between sliding calls")
    p.add_argument("--robot", default="", help="contract, for bags that carry none")
    p.add_argument("--task", default="", help="instruction instead of the recorded one")
    p.add_argument("--json", metavar="FILE", help="write every figure to FILE")
    p.add_argument("--plot", type=Path, metavar="FILE", help="draw it (.png, .svg or .pdf)")


def run(args: argparse.Namespace) -> int:
    """0 when every bag was played, 1 when it did not work out, 2 on wrong usage."""
    missing = [n for n in _NEEDS if importlib.util.find_spec(n) is None]
    if missing:
        return _wrong(f"needs {', '.join(missing)}: pip install 'wam_ros[record]'", 2)
    if args.plot and args.plot.suffix not in _FORMATS:
        return _wrong(f"--plot {args.plot}: name it .png, .svg or .pdf", 2)
    options = {}
    for text in args.option:
        name, sign, value = text.partition("=")
        if not sign:
            return _wrong(f"--option {text}: write NAME=VALUE", 2)
        options[name] = value
    from wam_ros.policy.base import PolicyError
    from wam_ros.policy.registry import BACKENDS
    from wam_ros.recording.reader import BagError
    from wam_ros.recording.rows import RowsError

    if args.policy not in BACKENDS:
        return _wrong(f"--policy {args.policy} is not one of {', '.join(BACKENDS)}", 2)
    try:
        return _play(args, options)
    except (PolicyError, BagError, RowsError, OSError) as err:
        return _wrong(str(err), 1)


def _wrong(message: str, code: int) -> int:
    print(f"wam open-loop: {message}", file=sys.stderr)
    return code


def _play(args: argparse.Namespace, options: dict[str, str]) -> int:
    from wam_ros.jsonfile import write_json
    from wam_ros.policy.open_loop import Cadence, check, play
    from wam_ros.policy.open_loop_figures import summarise
    from wam_ros.policy.registry import make
    from wam_ros.recording.bags import find_bags
    from wam_ros.recording.playback import Playback

    cadence = Cadence(args.cadence, args.latency, args.period)
    bags = find_bags(args.bags)
    policy = make(args.policy, options)
    check(policy)  # before the bags are read, and once more when a server has said what it is
    recordings = [Playback(b, args.robot) for b in bags]
    contract = _common(recordings, bags)
    cadence.stride(contract)
    try:
        policy.configure(contract)
        check(policy)
        policy.warm_up()
        calls = []
        for bag, recorded in zip(bags, recordings):
            calls.append(
                play(recorded, policy, cadence, bag.name, args.task.strip(), _progress(bag.name))
            )
    finally:
        policy.close()
    summary = {
        "policy": args.policy, "model": policy.model, "precision": policy.precision,
        "cadence": args.cadence, **summarise(contract, calls),
    }  # fmt: skip
    _table(summary)
    if args.json:
        write_json(args.json, summary)
    if args.plot:
        from wam_ros.policy.open_loop_plot import draw

        count = f"{summary['calls']} calls in {len(bags)} recording{'s' * (len(bags) > 1)}"
        title = f"{policy.model} on {contract.robot}, open loop, {args.cadence}: {count}"
        draw(contract, calls, summary, title, args.plot)
        print(f"drawn: {args.plot}")
    return 0


def _common(recordings: list[Any], bags: list[Path]) -> Any:
    """The contract of all recordings; PolicyError when they differ."""
    from wam_ros.policy.base import PolicyError

    first = recordings[0].contract
    for recorded, bag in zip(recordings, bags):
        c = recorded.contract
        same = (c.robot, c.action_names, c.state_names, c.rates)
        if same != (first.robot, first.action_names, first.state_names, first.rates):
            raise PolicyError(
                f"{bag.name} was recorded on {c.robot}, {bags[0].name} on {first.robot} (or at "
                "another rate): play robots one at a time"
            )
    return first


def _progress(name: str) -> Any:
    if not sys.stderr.isatty():
        return lambda done, total: None
    return lambda done, total: print(
        f"\r{name}: {done}/{total} calls", end="\n" if done == total else "", file=sys.stderr
    )


def _table(summary: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    table = Table(title=f"action error of {summary['model']}, {summary['calls']} calls", box=None)
    for column in ("key", "MAE", "RMSE", "max", "% of range", "holding: %"):
        table.add_column(column, justify="left" if column == "key" else "right")
    rows = summary["rows"]
    for key, f in rows["policy"]["keys"].items():
        still = rows["hold the state"]["keys"][key]["normalised"]
        cells = [_cell(f[n]) for n in ("mae", "rmse", "max")]
        table.add_row(key, *cells, _percent(f["normalised"]), _percent(still))
    every = {n: _percent(r["all"]["normalised"]) for n, r in rows.items()}
    table.add_row("all", "", "", "", every["policy"], every["hold the state"])
    console.print(table)
    others = ", ".join(f"{n} {v} %" for n, v in every.items() if n != "policy")
    print(f"policy {every['policy']} % of the joints' range; {others}")
    moving = {n: _percent(r["all"]["moving"]) for n, r in rows.items()}
    others = ", ".join(f"{n} {v} %" for n, v in moving.items() if n != "policy")
    print(
        f"in the {summary['moving_calls']} calls with motion: policy {moving['policy']} %; {others}"
    )
    if summary["still"]:
        print(f"did not move, left out of the percentages: {', '.join(summary['still'])}")
    slow = summary["latency"]
    print(f"latency p50 {slow['p50'] * 1e3:.0f} ms, p95 {slow['p95'] * 1e3:.0f} ms")


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
