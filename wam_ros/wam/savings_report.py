"""Each saving's error against the plain path, and the work it leaves out."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file

from wam_ros.wam import flops
from wam_ros.wam.config import preset
from wam_ros.wam.parity.policy import load_policy, recorded_options, replay_call
from wam_ros.wam.savings import Savings

_TERA = 1e12


@dataclass(frozen=True)
class Row:
    """One switch: largest relative action error, and TFLOP saved per chunk of the 14B."""

    switch: str
    error: float
    saved_8_steps: float
    saved_1_step: float


def action_errors(golden: Path) -> dict[str, float]:
    """Largest relative L2 error of the recorded calls' actions, per switch alone and for all.

    Float32, against the plain path, every call replayed twice: with the video wanted and, for what
    is dead only then, without.

    Raises
    ------
    FileNotFoundError
        When ``golden`` does not hold the recorded policy calls.
    """
    calls = load_file(golden / "policy_calls_fp32.safetensors")
    log = json.loads((golden / "policy_calls.json").read_text())

    def actions(savings: Savings, want_video: bool) -> list[torch.Tensor]:
        head = load_policy(golden, torch.float32, savings, calls)
        found = []
        for entry in log:
            options = dataclasses.replace(recorded_options(entry), want_video=want_video)
            found.append(replay_call(head, calls, entry["call"], options).action)
        return found

    plain = actions(Savings.none(), True)
    errors: dict[str, float] = {}
    for name in (*Savings.names(), "all"):
        savings = Savings.all() if name == "all" else Savings.only(name)
        pairs = [*zip(plain, actions(savings, True)), *zip(plain, actions(savings, False))]
        errors[name] = max(float((b - a).norm() / a.norm()) for a, b in pairs)
    return errors


def savings_report(golden: Path) -> list[Row]:
    """Rows for every switch, and ``all`` (whose saved work is not the sum: switches overlap)."""
    errors = action_errors(golden)
    config = preset("14b")
    costs = flops.encoders(config)
    eight, one = (flops.saved(config, steps, costs) for steps in (8, 1))
    nan = float("nan")
    return [
        Row(name, error, eight.get(name, nan) / _TERA, one.get(name, nan) / _TERA)
        for name, error in errors.items()
    ]


def table(rows: list[Row]) -> str:
    """The report as text."""
    head = "switch             action error   TFLOP saved per chunk (14B, CFG)"
    lines = [head, f"{'':32s}8 of 16 steps    1 step"]
    for row in rows:
        work = [
            "-" if value != value else f"{value:.2f}"
            for value in (row.saved_8_steps, row.saved_1_step)
        ]
        lines.append(f"{row.switch:18s} {row.error:12.1e} {work[0]:>13s} {work[1]:>9s}")
    return "\n".join(lines)


def main() -> None:
    """Print the table for the folder given as the only argument."""
    import sys

    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m wam_ros.wam.savings_report GOLDEN_FOLDER")
    print(table(savings_report(Path(sys.argv[1]))))


if __name__ == "__main__":
    main()
