"""Does the model's surprise rise when the scene is disturbed? The same episodes with and without.

In every pair the small World-Action Model drives two simulations that are equal up to the moment
at which, in one of them, a block is moved or the arm is pushed. A call's surprise is the distance
between what the call before imagined and what was then seen; the largest one of the second after
the mishap is compared with the largest one of the same second in the twin.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from common import arguments, finish, spread

BEFORE, AFTER = 0.6, 1.2
"""Seconds around the mishap that the curves show."""


def calls(found: Any) -> tuple[np.ndarray, np.ndarray]:
    """Times and surprises of the calls that have one."""
    pairs = [(c.called, c.surprise) for c in found.chunks if np.isfinite(c.surprise)]
    return np.array([t for t, _ in pairs]), np.array([s for _, s in pairs])


def largest(found: Any, begin: float, seconds: float = 1.0) -> float:
    """Largest surprise of the calls within ``seconds`` after ``begin``; NaN without a call."""
    t, s = calls(found)
    inside = s[(t > begin) & (t <= begin + seconds)]
    return float(inside.max()) if len(inside) else float("nan")


def main() -> None:
    parser = arguments(__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--robot", default="agibot_g1")
    parser.add_argument("--checkpoint", type=Path, help="default: the model of the package")
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--at", type=float, default=0.8, help="s after the instruction")
    parser.add_argument("--picture", type=Path, help="draw both curves to FILE")
    options = parser.parse_args()
    os.environ.setdefault("MUJOCO_GL", "osmesa")
    from wam_ros.contract import load_contract
    from wam_ros.resources import shipped_model
    from wam_ros.rollout import Rollout, Settings
    from wam_ros.rollout.plan import plan_episode
    from wam_ros.rollout.policies import make_policy
    from wam_ros.sim.disturbance import draw_disturbance
    from wam_ros.sim.variation import Scenes

    contract, settings = load_contract(options.robot), Settings()
    folder = options.checkpoint or shipped_model(contract.robot)
    if folder is None:
        raise SystemExit(f"no model for {contract.robot} comes with the package; --checkpoint DIR")
    scenes = Scenes(contract, None)
    policy = make_policy("wam", {"checkpoint": str(folder), "imagined_video": "true"}, 0.1)
    rollout = Rollout(contract, policy, cadence="sliding", latency=0.1, scenes=scenes)
    when = settings.settle + options.at
    rows: list[dict[str, Any]] = []
    curves: dict[str, list[tuple[float, float]]] = {"calm": [], "move": [], "push": []}
    for index in range(6 if options.quick else options.pairs):
        plan = plan_episode(contract, "held_out", options.seed, index, ("touch",))
        blocks = scenes.draw(plan.seed).blocks
        target, group = getattr(plan.task, "object", None), getattr(plan.task, "group", None)
        mishap = draw_disturbance(
            contract, blocks, plan.seed, target=target, group=group, window=(when, when)
        )
        calm, disturbed = (
            rollout.run(plan.instruction, options.at + 2.0, seed=plan.seed, disturbances=d)
            for d in ([], [mishap])
        )
        if mishap.happened_at is None:
            continue  # the hand was too near the block all the time
        at = mishap.happened_at
        row = {"seed": plan.seed, "kind": mishap.kind, "calm": largest(calm, at)}
        row["disturbed"] = largest(disturbed, at)
        if np.isfinite(row["calm"]) and np.isfinite(row["disturbed"]):
            rows.append(row)
            for name, found in (("calm", calm), (mishap.kind, disturbed)):
                t, s = calls(found)
                curves[name] += [(x - at, y) for x, y in zip(t, s) if -BEFORE <= x - at <= AFTER]
    result: dict[str, Any] = {"pairs": len(rows), "seed": options.seed, "rows": rows}
    print(f"{contract.robot}, {folder.name}, sliding, 0.1 s per call, seed {options.seed}")
    for kind in ("move", "push"):
        mine = [r for r in rows if r["kind"] == kind]
        if not mine:
            continue
        rise = np.array([r["disturbed"] / r["calm"] for r in mine])
        calm, disturbed = ([r[k] for r in mine] for k in ("calm", "disturbed"))
        result[kind] = {
            "calm": spread(calm),
            "disturbed": spread(disturbed),
            "ratio": spread(rise),
            "risen": int((rise > 1.0).sum()),
            "of": len(mine),
        }
        print(
            f"{kind}: surprise {np.median(calm):.3f} -> {np.median(disturbed):.3f} (medians), "
            f"ratio median {np.median(rise):.2f}, 5 to 95 % {np.percentile(rise, 5):.2f} to "
            f"{np.percentile(rise, 95):.2f}; higher in {int((rise > 1).sum())} of {len(mine)} pairs"
        )
    if options.picture:
        draw(options.picture, curves)
    rollout.close()
    finish(options, result)


def draw(path: Path, curves: dict[str, list[tuple[float, float]]]) -> None:
    """Median surprise in bins of 0.15 s around the mishap."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, axis = plt.subplots(figsize=(7, 3.5), constrained_layout=True)
    edges = np.arange(-BEFORE, AFTER + 0.01, 0.15)
    for name, points in curves.items():
        if not points:
            continue
        t, s = np.array(points).T
        which = np.digitize(t, edges)
        bins = [i for i in range(1, len(edges)) if (which == i).sum() >= 3]
        middle = [float(np.median(s[which == i])) for i in bins]
        axis.plot([edges[i] - 0.075 for i in bins], middle, ".-", label=name)
    axis.axvline(0.0, color="grey", linewidth=0.8)
    axis.set_xlabel("time since the mishap (s)")
    axis.set_ylabel("surprise (median)")
    axis.set_ylim(bottom=0.0)
    axis.legend(frameon=False)
    axis.grid(alpha=0.3)
    fig.savefig(path, dpi=110)
    plt.close(fig)


if __name__ == "__main__":
    main()
