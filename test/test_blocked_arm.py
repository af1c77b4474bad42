"""An arm held fast in MuJoCo: real servo, real forces, the executor's core in the same process."""

from __future__ import annotations

import numpy as np
import pytest

from wam_ros.contract import load_contract
from wam_ros.contract.data import ActionChunk
from wam_ros.execution import Executor, Mode

pytest.importorskip("mujoco", reason="needs MuJoCo")
from wam_ros.sim.plant import TIMESTEP, Plant

G1 = load_contract("agibot_g1")
JOINT = "left_arm_joint4"


def swing(t0: float, sequence: int) -> ActionChunk:
    """24 rows of a swing by 0.8 rad within three seconds, one joint of an arm."""
    t = np.clip((t0 + np.arange(24) / 30) / 3.0, 0.0, 1.0)
    rows = np.tile([G1.joints[n].home for n in G1.action_names], (24, 1))
    rows[:, G1.action_names.index(JOINT)] += 0.8 * (10 * t**3 - 15 * t**4 + 6 * t**5)
    return ActionChunk(
        t0, 1 / 30, rows, G1.action_names, G1.action_kinds, sequence, cadence="sliding"
    )


def test_the_reference_does_not_run_away_and_the_freed_arm_does_not_spring() -> None:
    plant = Plant(G1)
    core = Executor(G1)
    column = core.names.index(JOINT)
    limit = G1.joints[JOINT].limits
    urdf = G1.joints[JOINT].urdf[0][0]
    joint = plant.model.joint(urdf)
    stuck = G1.joints[JOINT].home + 0.15
    # A stop of the model's own, where the arm meets something solid.
    plant.model.jnt_range[joint.id] = (plant.model.jnt_range[joint.id][0], stuck)
    plant.model.jnt_limited[joint.id] = 1
    plant.model.jnt_solref[joint.id] = (0.004, 1.0)

    commands, measured, modes = [], [], []
    for k in range(3000):
        now = k * TIMESTEP
        core.set_measured(plant.positions(), now, resting=k == 0)
        if k == 0:
            assert core.arm(now) == ""
        if k % 75 == 0:
            core.submit(swing(now, k + 1), now)
        command = core.tick(now)
        if command is not None:
            plant.set_targets(dict(zip(core.names, map(float, command), strict=True)))
            commands.append(command[column])
        plant.step()
        measured.append(plant.positions()[JOINT])
        modes.append(core.mode)
    assert core.mode is Mode.DISARMED and JOINT in core.reason
    assert max(measured) < stuck + 0.02  # it was really held
    assert max(commands) < stuck + limit.following_error + 0.03
    let_go = modes.index(Mode.DISARMED, 1)
    assert abs(commands[-1] - measured[let_go]) < 0.02

    plant.model.jnt_limited[joint.id] = 0
    freed = []
    for _ in range(500):
        plant.step()
        freed.append(plant.positions()[JOINT])
    assert np.abs(np.diff(freed)).max() / TIMESTEP < 0.2
    assert abs(freed[-1] - measured[-1]) < 0.03
