"""The `wam` command: collects the sub-commands and turns their errors into messages."""

from __future__ import annotations

import argparse
import sys

from wam_ros.commands import (
    collect,
    demo,
    doctor,
    evaluate,
    graph,
    open_loop,
    record,
    run_instruction,
    train,
)
from wam_ros.serving import cli as serving
from wam_ros.wam import cli as model

EPILOG = """\
examples:
  wam demo                              watch the simulated G1 touch a block
  wam launch agibot_g1                  start the whole graph; Ctrl-C ends it
  wam say "touch the green block with the right hand"
  wam run "touch the red block" --deadline 20   say it, and wait for the outcome
  wam status                            live view of policy and executor
  wam estop                             stop now; stays stopped until ...
  wam reset && wam arm                  ... you release it and arm again
"""


MODULES = (
    demo,
    graph,
    run_instruction,
    doctor,
    record,
    open_loop,
    collect,
    train,
    evaluate,
    model,
    serving,
)
"""Each brings ``add_parser(sub)`` and ``run(args)`` and imports nothing heavy at the top."""


def parser() -> argparse.ArgumentParser:
    """Build the command line."""
    top = argparse.ArgumentParser(
        prog="wam",
        description="Run a World-Action Model on a robot through ROS 2.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    sub = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in MODULES:
        known = set(sub.choices)
        module.add_parser(sub)
        for name in set(sub.choices) - known:
            sub.choices[name].set_defaults(run=module.run)
    return top


def main(argv: list[str] | None = None) -> int:
    """Entry point; 0 on success, 1 when it did not work out, 2 on wrong usage."""
    args = parser().parse_args(argv)
    from wam_ros.bringup import BringupError
    from wam_ros.contract import ContractError
    from wam_ros.jsonfile import can_be_written

    for name in ("json", "picture", "plot"):  # found out now, not after an hour's work
        try:
            if getattr(args, name, None):
                can_be_written(getattr(args, name))
        except OSError as err:
            print(f"wam {args.command}: --{name}: {err}", file=sys.stderr)
            return 2
    try:
        return int(args.run(args))
    except (BringupError, ContractError, RuntimeError) as err:
        print(f"wam {args.command}: {err}", file=sys.stderr)
        return 2 if isinstance(err, ValueError) else 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
