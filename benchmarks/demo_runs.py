"""Run the demo over many seeds and count how often it succeeds."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from common import arguments, finish, spread

from wam_ros.contract.data import CADENCES
from wam_ros.demo import DemoOptions, run


def main() -> None:
    """One run per seed, a table, and the spread of the figures."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--robot", default="agibot_g1")
    parser.add_argument("--policy", default="scripted", choices=("scripted", "wam"))
    parser.add_argument("--cadence", default="async", choices=CADENCES)
    parser.add_argument("--latency", type=float, default=0.1)
    options = parser.parse_args()
    runs: list[dict[str, Any]] = []
    hand = "" if options.robot == "franka_droid" else " with the left hand"
    for seed in range(options.seed, options.seed + (2 if options.quick else options.runs)):
        with tempfile.TemporaryDirectory() as folder:
            demo = DemoOptions(
                robot=options.robot,
                policy=options.policy,
                instruction=f"touch the red block{hand}",
                cadence=options.cadence,
                latency=options.latency,
                seed=seed,
                out=Path(folder),
            )
            try:
                runs.append(run(demo, say=lambda _: None))
            except RuntimeError as err:  # a graph that does not come up is a failed run
                runs.append({"seed": seed, "success": False, "refused": str(err)})
        r = runs[-1]
        print(
            f"  seed {seed:3d}  success {r['success']!s:5}  time {r.get('time_to_success_s')} s  "
            f"distance {r.get('final_distance_m')} m  chunks {r.get('chunks')}  "
            f"rejected {r.get('chunks_rejected')}  missed ticks {r.get('missed_ticks')}",
            flush=True,
        )
    done = [r for r in runs if r["success"]]
    print(f"{len(done)} of {len(runs)} succeeded ({options.policy}, {options.cadence})")
    times = np.array([r["time_to_success_s"] for r in done])
    result: dict[str, Any] = {
        "robot": options.robot,
        "policy": options.policy,
        "cadence": options.cadence,
        "latency_s": options.latency,
        "succeeded": len(done),
        "runs": runs,
        "time_to_success_s": spread(times),
    }
    finish(options, result)


if __name__ == "__main__":
    main()
