"""Does the model's surprise rise when the scene is disturbed? The same episodes with and without.

In every pair the small World-Action Model drives two simulations that are equal up to the moment
at which, in one of them, the block is moved, the arm is pushed or the light goes down. A call's
surprise is the distance between what a call before imagined and what was then seen. Compared are
the means over the calls of the second after the mishap, in the twins. (The largest one says less:
surprise falls along a motion, so the largest is the first, which has seen nothing of the mishap.)
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

import numpy as np
from common import arguments, finish, spread
from scipy.stats import binomtest

BEFORE, AFTER = 0.6, 1.2
"""Seconds around the mishap that the curves show."""


def calls(found: Any) -> tuple[np.ndarray, np.ndarray]:
    """Times and surprises of the calls that have one."""
    pairs = [(c.called, c.surprise) for c in found.chunks if np.isfinite(c.surprise)]
    return np.array([t for t, _ in pairs]), np.array([s for _, s in pairs])


def mean_after(found: Any, begin: float, seconds: float = 1.0) -> float:
    """Mean surprise of the calls within ``seconds`` after ``begin``; NaN without a call."""
    t, s = calls(found)
    inside = s[(t > begin) & (t <= begin + seconds)]
    return float(inside.mean()) if len(inside) else float("nan")


def by_chance(risen: int, of: int) -> float:
    """Chance of at least so many rises if up and down were as likely: a one-sided sign test."""
    return float(binomtest(risen, of, alternative="greater").pvalue)


def main() -> None:
    parser = arguments(__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--robot", default="agibot_g1")
    parser.add_argument("--checkpoint", type=Path, help="default: the model of the package")
    parser.add_argument("--pairs", type=int, default=12, help="of every kind of mishap")
    parser.add_argument("--at", type=float, default=0.8, help="s after the instruction")
    parser.add_argument("--picture", type=Path, help="draw both curves to FILE")
    options = parser.parse_args()
    os.environ.setdefault("MUJOCO_GL", "osmesa")
    from wam_ros.contract import load_contract
    from wam_ros.resources import shipped_model
    from wam_ros.rollout import Rollout, Settings
    from wam_ros.rollout.plan import plan_episode
    from wam_ros.rollout.policies import make_policy
    from wam_ros.sim.disturbance import KINDS, Kind, draw_disturbance
    from wam_ros.sim.variation import Scenes

    contract, settings = load_contract(options.robot), Settings()
    folder = options.checkpoint or shipped_model(contract.robot)
    if folder is None:
        raise SystemExit(f"no model for {contract.robot} comes with the package; --checkpoint DIR")
    scenes = Scenes(contract, None)
    policy = make_policy("wam", {"checkpoint": str(folder), "imagined_video": "true"}, 0.1)
    rollout = Rollout(contract, policy, cadence="sliding", latency=0.1, scenes=scenes)
    when = settings.settle + options.at

    def drive(plan: Any, mishaps: list[Any]) -> Any:
        seconds = options.at + 2.0
        return rollout.run(plan.instruction, seconds, seed=plan.seed, disturbances=mishaps)

    rows: list[dict[str, Any]] = []
    curves: dict[str, list[tuple[float, float]]] = {k: [] for k in ("calm", *KINDS)}
    pairs = 2 if options.quick else options.pairs
    missing = dict.fromkeys(KINDS, pairs)
    for index in range(4 * len(KINDS) * pairs):
        kind = max(missing, key=lambda k: missing[k])
        if not missing[kind]:
            break
        plan = plan_episode(contract, "held_out", options.seed, index, ("touch",))
        blocks = scenes.draw(plan.seed).blocks
        target, group = getattr(plan.task, "object", None), getattr(plan.task, "group", None)
        mishap = draw_disturbance(
            contract,
            blocks,
            plan.seed,
            target=target,
            group=group,
            window=(when, when),
            kind=cast(Kind, kind),
        )
        if mishap.kind != kind:
            continue  # there was no other place for the block
        disturbed = drive(plan, [mishap])
        if mishap.happened_at is None:
            continue  # the hand was too near the block all the time
        calm, at = drive(plan, []), mishap.happened_at
        row = {"seed": plan.seed, "kind": kind, "calm": mean_after(calm, at)}
        row["disturbed"] = mean_after(disturbed, at)
        if np.isfinite(row["calm"]) and np.isfinite(row["disturbed"]):
            missing[kind] -= 1
            rows.append(row)
            for name, found in (("calm", calm), (kind, disturbed)):
                t, s = calls(found)
                curves[name] += [(x - at, y) for x, y in zip(t, s) if -BEFORE <= x - at <= AFTER]
    result: dict[str, Any] = {"pairs": len(rows), "seed": options.seed, "rows": rows}
    print(f"{contract.robot}, {folder.name}, sliding, 0.1 s per call, seed {options.seed}")
    for kind in KINDS:
        mine = [r for r in rows if r["kind"] == kind]
        if not mine:
            continue
        rise = np.array([r["disturbed"] / r["calm"] for r in mine])
        calm, disturbed = ([r[k] for r in mine] for k in ("calm", "disturbed"))
        risen = int((rise > 1.0).sum())
        result[kind] = {
            "calm": spread(calm),
            "disturbed": spread(disturbed),
            "ratio": spread(rise),
            "risen": risen,
            "of": len(mine),
            "by_chance": round(by_chance(risen, len(mine)), 5),
        }
        print(
            f"{kind}: surprise {np.median(calm):.3f} -> {np.median(disturbed):.3f} (medians), "
            f"ratio median {np.median(rise):.2f}, 5 to 95 % {np.percentile(rise, 5):.2f} to "
            f"{np.percentile(rise, 95):.2f}; higher in {risen} of {len(mine)} pairs "
            f"(by chance: {by_chance(risen, len(mine)):.2g})"
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
