"""The teacher's plan carried out by the plant, physics and contacts included."""

from __future__ import annotations

import numpy as np
import pytest

from wam_ros.contract import load_contract
from wam_ros.contract.data import Observation
from wam_ros.execution.clearance import Space
from wam_ros.policy.base import Window
from wam_ros.policy.scripted import ScriptedPolicy
from wam_ros.resources import share
from wam_ros.sim.plant import TIMESTEP, Plant
from wam_ros.sim.urdf import expand


@pytest.fixture(scope="module", params=["agibot_g1", "franka_droid", "yam"])
def plant(request) -> Plant:
    return Plant(load_contract(request.param))


# In 9, 14 and 29 the red block lies where inverse kinematics has a second branch of solutions.
@pytest.mark.parametrize("seed", [0, 4, 9, 14, 29])
@pytest.mark.parametrize("block", ["red_block", "blue_block"])
def test_every_arm_touches_and_disturbs_nothing(plant: Plant, seed: int, block: str) -> None:
    contract = plant.contract
    arms = [g.name for g in contract.groups if g.role == "arm"]
    for arm in arms:
        plant.reset(seed)
        plant.step(100)
        before = plant.objects()
        teacher = ScriptedPolicy(latency=0.0)
        teacher.configure(contract)
        hand = f" with the {arm.partition('_')[0]} hand" if len(arms) > 1 else ""
        teacher.reset(f"touch the {block.replace('_', ' ')}{hand}")
        measured = plant.positions()
        period = contract.rates.step_period
        names = [j.name for j in contract.group(arm).joints]
        limits = [contract.joints[n].limits.following_error for n in names]
        near, t, sent = 0.0, 0.0, plant.time
        space = Space(contract, expand(share() / contract.urdf))
        space.restart(np.array([measured[n] for n in contract.control_names]))
        while near < 0.5 and t < 8.0:
            measured = plant.positions()
            state = np.array([measured[n] for n in contract.state_names])
            chunk = teacher.infer(Window((Observation(t, {}, state),), before, cadence="async"))
            columns = [chunk.names.index(n) for n in names]
            arm_columns = [n for n in chunk.names if contract.group_of(n).role == "arm"]
            for row in chunk.actions[: contract.rates.horizon // 2]:
                targets = dict(zip(chunk.names, row.tolist(), strict=True))
                plant.set_targets({n: targets[n] for n in arm_columns})
                sent += period
                plant.step(max(1, round((sent - plant.time) / TIMESTEP)))
                now = plant.positions()
                pose = np.array([now[n] for n in contract.control_names])
                assert space.check(pose, pose) == ""
                lag = [abs(now[chunk.names[c]] - row[c]) for c in columns]
                assert all(a < b for a, b in zip(lag, limits, strict=True)), (arm, t, lag)
                t += period
                distance = np.linalg.norm(plant.tip(arm) - plant.objects()[block])
                near = near + period if distance < 0.03 else 0.0
        assert near >= 0.5, f"{arm} did not reach {block} in {t:.1f} s"
        moved = {n: float(np.linalg.norm(p - before[n])) for n, p in plant.objects().items()}
        assert max(moved.values()) < 0.01, moved
