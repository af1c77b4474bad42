"""Scenes repeat by seed, stay safe, show in the pictures, and leave the default scene alone."""

from __future__ import annotations

import ctypes.util

import numpy as np
import pytest

from wam_ros.contract import load_contract
from wam_ros.contract.kinematics import Kinematics
from wam_ros.resources import share
from wam_ros.sim.disturbance import HAND_OFF, KINDS, LEAST_MOVE, draw_disturbance
from wam_ros.sim.plant import TIMESTEP, Plant, Views
from wam_ros.sim.scene import BLOCK_HALF, COLOURS, place_blocks, scene_for
from wam_ros.sim.seeds import episode_seed, split_of, stream
from wam_ros.sim.tasks import arms
from wam_ros.sim.urdf import expand
from wam_ros.sim.variation import Randomisation, Scenes

ROBOTS = ("agibot_g1", "franka_droid", "yam")
GL = pytest.mark.skipif(not ctypes.util.find_library("OSMesa"), reason="libosmesa6 is missing")


@pytest.fixture(scope="module", params=ROBOTS)
def plant(request) -> Plant:
    return Plant(load_contract(request.param))


@pytest.fixture(scope="module")
def scenes(plant: Plant) -> Scenes:
    return Scenes(plant.contract)


def test_training_and_evaluation_share_no_seed() -> None:
    train = {episode_seed("train", i) for i in range(1000)}
    held_out = {episode_seed("held_out", i) for i in range(1000)}
    assert len(train) == len(held_out) == 1000 and not train & held_out
    assert {split_of(s) for s in train} == {"train"}
    assert {split_of(s) for s in held_out} == {"held_out"}
    for bad in (lambda: episode_seed("test", 0), lambda: episode_seed("train", -1)):
        with pytest.raises(ValueError):
            bad()
    with pytest.raises(ValueError):
        split_of(-1)


def test_streams_of_one_seed_are_apart() -> None:
    assert stream(3, "blocks").random() == stream(3, "blocks").random()
    assert stream(3, "blocks").random() != stream(3, "look").random()


def test_scene_depends_on_the_seed_alone(scenes: Scenes) -> None:
    first = scenes.draw(6)
    scenes.draw(7)
    again = scenes.draw(6)
    np.testing.assert_equal(vars(again), vars(first))
    other = scenes.draw(8)
    assert other.start != first.start and other.light != first.light
    assert other.cameras != first.cameras and other.table != first.table
    assert not np.allclose(other.blocks["red_block"], first.blocks["red_block"])


def test_widths_are_kept_and_zero_changes_nothing(plant: Plant) -> None:
    how = Randomisation(start=0.2, camera_shift=0.003, camera_turn=0.01, light=0.3)
    wide, still = Scenes(plant.contract, how), Scenes(plant.contract, Randomisation.none())
    joints = plant.contract.joints
    for seed in range(20):
        scene = wide.draw(seed)
        assert all(abs(v - joints[n].home) <= 0.2 for n, v in scene.start.items())
        assert all(np.abs(j.shift).max() <= 0.003 for j in scene.cameras.values())
        assert all(np.abs(j.turn).max() <= 0.01 for j in scene.cameras.values())
        assert 0.7 <= scene.light.ambient <= 1.3 and 0.7 <= scene.light.diffuse <= 1.3
        plain = still.draw(seed)
        assert not plain.start and plain.light.turn == (0.0, 0.0)
        np.testing.assert_equal(plain.blocks, scene.blocks)


def test_start_poses_keep_limits_and_distance_from_the_table(plant: Plant, scenes: Scenes) -> None:
    contract = plant.contract
    tree = Kinematics(expand(share() / contract.urdf))
    home = {n: j.home for n, j in contract.joints.items()}
    spread = []
    for seed in range(40):
        start = scenes.draw(seed).start
        spread.append(list(start.values()))
        for name, value in start.items():
            limits = contract.joints[name].limits
            assert limits.lower <= value <= limits.upper
        pose = {**home, **start}
        joints = {u: s * v + o for n, v in pose.items() for u, s, o in contract.joints[n].urdf}
        for arm in arms(contract):
            tip = tree.fk(joints, contract.group(arm).tip_link or "")[:3, 3]
            assert tip[2] > plant.scene.top + 2 * BLOCK_HALF + 0.02
    assert np.std(spread, axis=0).min() > 0.03  # every joint does vary


def test_start_is_at_rest_and_stays(plant: Plant, scenes: Scenes) -> None:
    scene = scenes.draw(2)
    plant.apply(scene)
    plant.step(250)
    now = plant.positions()
    assert max(abs(now[n] - v) for n, v in scene.start.items()) < 0.02
    for name in COLOURS:
        np.testing.assert_allclose(plant.objects()[name], scene.blocks[name], atol=0.002)


def test_reset_brings_the_nominal_scene_back(plant: Plant, scenes: Scenes) -> None:
    def everything() -> dict[str, np.ndarray]:
        m = plant.model
        names = ("cam_pos", "cam_quat", "light_dir", "light_diffuse", "geom_rgba")
        state = {n: np.array(getattr(m, n)) for n in names}
        state["head"] = np.array([m.vis.headlight.ambient, m.vis.headlight.diffuse])
        return {**state, "qpos": plant.data.qpos.copy(), "ctrl": plant.data.ctrl.copy()}

    plant.reset(3)
    before = everything()
    for name, spot in place_blocks(plant.scene, 3).items():
        np.testing.assert_array_equal(plant.objects()[name], spot)
    plant.apply(scenes.draw(5))
    varied = everything()
    assert all(not np.array_equal(varied[n], before[n]) for n in before)
    plant.reset(3)
    np.testing.assert_equal(everything(), before)


@GL
def test_looks_show_in_every_picture(plant: Plant, scenes: Scenes) -> None:
    views = Views(plant, width=160)
    try:
        plant.reset(0)
        cameras = [c.name for c in plant.contract.cameras]
        plain = [views.render(c).copy() for c in cameras]
        looks = scenes.draw(11)
        still = type(looks)(0, place_blocks(plant.scene, 0), {}, looks.light, looks.table,
                            looks.floor, looks.cameras)  # fmt: skip
        plant.apply(still)
        for camera, before in zip(cameras, plain):
            change = np.abs(views.render(camera).astype(int) - before).mean()
            assert 1.0 < change < 60.0, camera
        plant.reset(0)
        for camera, before in zip(cameras, plain):
            np.testing.assert_array_equal(views.render(camera), before)
    finally:
        views.close()


def test_moved_block_waits_for_the_hand_and_rests_in_its_place(plant: Plant) -> None:
    blocks = place_blocks(plant.scene, 1)
    found = [draw_disturbance(plant.contract, blocks, s, target="red_block") for s in range(30)]
    kinds = {d.kind for d in found}
    assert kinds == {"move", "push"}
    for kind in KINDS:  # and each when it is asked for
        asked = [draw_disturbance(plant.contract, blocks, s, kind=kind) for s in range(5)]
        assert {d.kind for d in asked} == {kind}
    for d in (d for d in found if d.kind == "move"):
        assert np.linalg.norm(d.vector - blocks["red_block"]) >= LEAST_MOVE
        gaps = [np.linalg.norm(d.vector - p) for n, p in blocks.items() if n != d.target]
        assert min(gaps) >= scene_for(plant.contract.robot).spacing - 1e-9
    d = next(d for d in found if d.kind == "move")
    plant.reset(1)
    tips = [plant.tip(g) for g in arms(plant.contract)]
    near = min(np.linalg.norm(t - p) for t in tips for p in (blocks["red_block"], d.vector))
    for _ in range(round((d.time + 0.2) / TIMESTEP / 10)):
        plant.step(10)
        d.apply(plant)
    if near < HAND_OFF:
        assert d.happened_at is None
    else:
        assert d.happened_at == pytest.approx(d.time, abs=0.03)
        np.testing.assert_allclose(plant.objects()["red_block"], d.vector, atol=0.002)


def test_the_light_goes_down_and_a_reset_brings_it_back(plant: Plant) -> None:
    camera = plant.contract.cameras[0].name
    views = Views(plant, width=64)
    try:
        plant.reset(0)
        bright = views.render(camera)
        d = draw_disturbance(
            plant.contract, place_blocks(plant.scene, 0), 0, window=(0.1, 0.1), kind="dark"
        )
        assert not d.apply(plant)
        np.testing.assert_array_equal(views.render(camera), bright)
        plant.step(60)
        assert d.apply(plant) and not d.apply(plant)
        assert views.render(camera).mean() < 0.7 * bright.mean()
        plant.reset(0)
        np.testing.assert_array_equal(views.render(camera), bright)
    finally:
        views.close()


def test_push_moves_the_arm_for_a_while_within_its_following_error(plant: Plant) -> None:
    contract = plant.contract
    blocks = place_blocks(plant.scene, 0)
    arm = arms(contract)[0]
    for seed in range(12):
        d = draw_disturbance(contract, blocks, seed, group=arm)
        if d.kind != "push":
            continue
        plant.reset(0)
        names = [j.name for j in contract.group(arm).joints]
        rest = plant.positions()
        largest, away = dict.fromkeys(names, 0.0), 0.0
        start = plant.tip(arm)
        for _ in range(round((d.time + 1.5) / TIMESTEP / 5)):
            d.apply(plant)
            plant.step(5)
            now = plant.positions()
            largest = {n: max(v, abs(now[n] - rest[n])) for n, v in largest.items()}
            away = max(away, float(np.linalg.norm(plant.tip(arm) - start)))
        assert away > 0.002
        assert all(v < contract.joints[n].limits.following_error for n, v in largest.items())
        assert np.linalg.norm(plant.tip(arm) - start) < 0.01  # it comes back
