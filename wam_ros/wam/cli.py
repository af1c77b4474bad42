"""Commands of the model itself; they need torch, not ROS: ``python -m wam_ros.wam.cli``."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path
from typing import Any

from wam_ros.jsonfile import write_json

COMMANDS = ("parity", "inspect-checkpoint", "savings-report", "quantize-report")

# What each command imports, and the distribution that brings it.
_NEEDS = {
    "parity": ("torch", "diffusers", "transformers", "safetensors", "ftfy", "msgpack"),
    "inspect-checkpoint": ("numpy", "yaml"),
    "quantize-report": ("torch", "diffusers", "transformers", "safetensors"),
    "savings-report": ("torch", "diffusers", "transformers"),
}
_DISTRIBUTION = {"yaml": "pyyaml"}


def add_parser(sub: Any) -> None:
    """Add the sub-commands to the subparsers of a command line; imports nothing heavy."""
    p = sub.add_parser("parity", help="compare the model with recorded reference numbers")
    p.add_argument("--golden", type=Path, required=True, metavar="DIR", help="recorded data")
    p.add_argument("--case", action="append", metavar="NAME", help="only this case (repeatable)")
    p.add_argument("--threads", type=int, default=1, help="CPU threads (default 1: tiny tensors)")
    p.add_argument("--json", metavar="FILE", help="write every comparison to FILE")
    p = sub.add_parser(
        "inspect-checkpoint", help="what a checkpoint folder holds, and its problems"
    )
    p.add_argument("folder", type=Path, metavar="DIR", help="checkpoint in the released layout")
    p.add_argument("--base", type=Path, metavar="DIR", help="for LoRA: what it was trained on")
    p.add_argument("--json", metavar="FILE", help="write the findings to FILE")
    p = sub.add_parser(
        "savings-report", help="what each saving changes in the actions, and what it saves"
    )
    p.add_argument("--seed", type=int, default=0, help="of weights, frames and states")
    p.add_argument("--threads", type=int, default=0, help="CPU threads (default: torch's choice)")
    p.add_argument("--json", metavar="FILE", help="write the figures to FILE")

    p = sub.add_parser("quantize-report", help="what fewer bits cost: errors and bytes")
    p.add_argument("folder", type=Path, nargs="?", metavar="DIR", help="checkpoint to quantise")
    p.add_argument("--base", type=Path, metavar="DIR", help="for LoRA: what it was trained on")
    p.add_argument("--random", metavar="SIZE", help="random weights: tiny, small, 5b or 14b")
    p.add_argument("--layers", type=int, default=0, help="with --random: only so many blocks")
    p.add_argument("--precision", choices=("bf16", "fp8", "int8", "nvfp4"), default="fp8")
    p.add_argument("--reference", choices=("float32", "bfloat16"), default="float32")
    p.add_argument("--steps", type=int, default=16, help="sampler steps")
    p.add_argument("--dit-steps", type=int, default=8, help="of 16, how many run the transformer")
    p.add_argument("--device", default="cpu", help="cpu or cuda")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--threads", type=int, default=0, help="CPU threads (default: torch's choice)")
    p.add_argument("--every-layer", action="store_true", help="a line for each, however many")
    p.add_argument("--json", metavar="FILE", help="write every figure to FILE")


def run(args: argparse.Namespace) -> int:
    """Run a command; 0 fine, 1 a miss or a problem found, 2 wrong usage or missing packages."""
    missing = [n for n in _NEEDS[args.command] if importlib.util.find_spec(n) is None]
    if missing:
        names = " ".join(_DISTRIBUTION.get(n, n) for n in missing)
        print(
            f"wam {args.command}: {names} not installed here; type: pip install {names}\n"
            "(or all of it: pip install 'wam_ros[wam]'; choose the torch build for your machine)",
            file=sys.stderr,
        )
        return 2
    try:
        commands = {
            "parity": _parity,
            "inspect-checkpoint": _inspect,
            "savings-report": _savings,
            "quantize-report": _quantize,
        }
        return commands[args.command](args)
    except (OSError, ValueError) as error:
        print(f"wam {args.command}: {error}", file=sys.stderr)
        return 2


def _parity(args: argparse.Namespace) -> int:
    import torch

    from wam_ros.wam.parity import runner

    torch.set_num_threads(max(1, args.threads))
    code, summary = runner.run(args.golden, args.case)
    _write(args.json, summary)
    return code


def _inspect(args: argparse.Namespace) -> int:
    from wam_ros.wam.checkpoint.inspect import examine, render

    findings = examine(args.folder, args.base)
    print(render(findings))
    _write(args.json, findings.to_json())
    return 1 if findings.problems else 0


def _quantize(args: argparse.Namespace) -> int:
    from wam_ros.wam.precision import report

    found = report.run(args)
    print(report.render(found, random=not args.folder, every_layer=args.every_layer))
    _write(args.json, found.to_json())
    return 0


def _savings(args: argparse.Namespace) -> int:
    import torch

    from wam_ros.wam import savings_report

    if args.threads:
        torch.set_num_threads(args.threads)
    found = savings_report.report(args.seed)
    for line in savings_report.lines(found):
        print(line)
    _write(args.json, found)
    return 0 if found["ok"] else 1


def _write(path: str | None, data: Any) -> None:
    if path:
        write_json(path, data)


def main(argv: list[str] | None = None) -> int:
    """Entry point without the rest of the package's commands."""
    top = argparse.ArgumentParser(prog="python -m wam_ros.wam.cli", description=__doc__)
    add_parser(top.add_subparsers(dest="command", required=True, metavar="COMMAND"))
    return run(top.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
