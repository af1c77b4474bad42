"""The plant: same seed same scene, holds still, follows targets, shows the blocks."""

from __future__ import annotations

import ctypes.util

import numpy as np
import pytest

from wam_ros.contract import load_contract
from wam_ros.sim.plant import Plant, Views
from wam_ros.sim.scene import scene_for

ROBOTS = ["agibot_g1", "franka_droid", "yam"]


@pytest.fixture(scope="module", params=ROBOTS)
def plant(request) -> Plant:
    return Plant(load_contract(request.param), seed=0)


def home(plant: Plant) -> dict[str, float]:
    return {n: j.home for n, j in plant.contract.joints.items() if j.urdf}


def test_holds_home(plant: Plant) -> None:
    plant.reset(0)
    plant.step(1000)
    now = plant.positions()
    assert max(abs(now[n] - q) for n, q in home(plant).items()) < 0.02


def test_follows_targets(plant: Plant) -> None:
    plant.reset(0)
    arm = next(g for g in plant.contract.groups if g.role == "arm")
    target = {j.name: j.home + 0.1 for j in arm.joints[:1]}
    plant.set_targets(target)
    plant.step(750)
    name = arm.joints[0].name
    assert plant.positions()[name] == pytest.approx(target[name], abs=0.01)


def test_a_jammed_joint_stays_where_it_is_until_it_is_freed(plant: Plant) -> None:
    plant.reset(0)
    joint, other = next(g for g in plant.contract.groups if g.role == "arm").joints[:2]
    before = plant.positions()
    targets = {j.name: before[j.name] + 0.2 for j in (joint, other)}
    plant.jam(joint.name)
    plant.set_targets(targets)
    plant.step(750)
    now = plant.positions()
    assert now[joint.name] == pytest.approx(before[joint.name], abs=0.01)
    assert now[other.name] == pytest.approx(targets[other.name], abs=0.02)
    plant.jam()
    plant.step(750)
    assert plant.positions()[joint.name] == pytest.approx(targets[joint.name], abs=0.02)
    with pytest.raises(KeyError):
        plant.jam("no_such_joint")


def test_seed_fixes_the_blocks(plant: Plant) -> None:
    plant.reset(4)
    first = plant.objects()
    plant.reset(5)
    assert not np.allclose(first["red_block"], plant.objects()["red_block"])
    plant.reset(4)
    for name, position in plant.objects().items():
        np.testing.assert_array_equal(position, first[name])


def test_blocks_rest_on_the_table(plant: Plant) -> None:
    plant.reset(1)
    before = plant.objects()
    plant.step(500)
    for name in ("red_block", "green_block", "blue_block"):
        np.testing.assert_allclose(plant.objects()[name], before[name], atol=0.002)


def test_unknown_joint_is_an_error(plant: Plant) -> None:
    with pytest.raises(KeyError):
        plant.set_targets({"no_such_joint": 0.0})


def test_unknown_robot_has_no_scene() -> None:
    with pytest.raises(LookupError, match="there is one for agibot_g1"):
        scene_for("pr2")


@pytest.mark.skipif(not ctypes.util.find_library("OSMesa"), reason="libosmesa6 is not installed")
def test_first_view_shows_all_blocks(plant: Plant) -> None:
    plant.reset(0)
    views = Views(plant)
    try:
        picture = views.render(plant.contract.cameras[0].name).astype(int)
    finally:
        views.close()
    assert picture.shape[1:] == (320, 3)
    for channel in range(3):
        others = [c for c in range(3) if c != channel]
        strong = picture[:, :, channel] > 1.6 * picture[:, :, others].max(axis=2) + 20
        assert strong.sum() > 10, f"no pixel of colour {channel}"
