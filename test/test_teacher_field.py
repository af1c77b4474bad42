"""What makes the teacher learnable: no memory, no branches, near scenes give near motions."""

from __future__ import annotations

import numpy as np
import pytest

from wam_ros.contract import load_contract
from wam_ros.contract.data import Observation
from wam_ros.policy.base import Window
from wam_ros.policy.guide import HOVER, TOUCH, smooth
from wam_ros.policy.scripted import ScriptedPolicy
from wam_ros.sim.scene import place_blocks, scene_for
from wam_ros.sim.start import StartPoses
from wam_ros.sim.tasks import OBJECTS, arms

ROBOTS = ("agibot_g1", "franka_droid", "yam")


@pytest.fixture(scope="module", params=ROBOTS)
def teacher(request) -> ScriptedPolicy:
    # A clock of its own: what a busy machine adds to a call would move the rows.
    policy = ScriptedPolicy(latency=0.0, clock=lambda: 0.0, sleep=lambda _: None)
    policy.configure(load_contract(request.param))
    return policy


def spots(teacher: ScriptedPolicy, count: int, seed: int) -> np.ndarray:
    """Points uniform over the whole area in which blocks are placed."""
    s = scene_for(teacher._contract.robot)
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(*s.block_x, count), rng.uniform(*s.block_y, count)
    return np.stack([x, y, np.full(count, s.top + 0.02)], axis=1)


def up(height: float) -> np.ndarray:
    return np.array([0.0, 0.0, height])


def test_every_hand_reaches_the_whole_area(teacher: ScriptedPolicy) -> None:
    for guide in teacher._arms.values():
        for spot in spots(teacher, 100, 1):
            for height in (TOUCH, HOVER):
                posture = guide.reach.goal(spot + up(height))
                assert posture.error < 1e-3, (guide.reach.group.name, spot, height)
                for q, joint in zip(posture.q, guide.reach.group.joints, strict=True):
                    assert joint.limits.lower <= q <= joint.limits.upper


def test_one_centimetre_moves_the_goal_by_little(teacher: ScriptedPolicy) -> None:
    jumps = []
    for guide in teacher._arms.values():
        for spot in spots(teacher, 200, 2):
            angle = np.random.default_rng(len(jumps)).uniform(0, 2 * np.pi)
            near = spot + 0.01 * np.array([np.cos(angle), np.sin(angle), 0.0])
            a, b = (guide.reach.goal(p + up(TOUCH)).q for p in (spot, near))
            jumps.append(float(np.abs(a - b).max()))
    assert max(jumps) < 0.12  # rad, at the edge of a hand's reach; a branch away is 0.5 and more
    assert np.median(jumps) < 0.04


def test_goal_does_not_depend_on_what_was_asked_before(teacher: ScriptedPolicy) -> None:
    fresh = ScriptedPolicy(latency=0.0)
    fresh.configure(teacher._contract)
    for name, guide in teacher._arms.items():
        for spot in spots(teacher, 10, 3):
            np.testing.assert_array_equal(
                guide.reach.goal(spot).q, fresh._arms[name].reach.goal(spot.copy()).q
            )


def call(teacher: ScriptedPolicy, text: str, state: np.ndarray, objects: dict) -> np.ndarray:
    teacher.reset(text)
    return teacher.infer(Window((Observation(5.0, {}, state),), objects, cadence="sync")).actions


def scene(teacher: ScriptedPolicy, seed: int) -> tuple[np.ndarray, dict]:
    contract = teacher._contract
    place = scene_for(contract.robot)
    start = StartPoses(contract, place).draw(np.random.default_rng(seed), 0.25)
    home = {n: j.home for n, j in contract.joints.items()}
    state = np.array([{**home, **start}[n] for n in contract.state_names])
    return state, {**place_blocks(place, seed), "bowl": np.array([*place.bowl, place.top])}


def sentence(teacher: ScriptedPolicy, seed: int) -> str:
    names = arms(teacher._contract)
    hand = f" with the {names[seed % 2].partition('_')[0]} hand" if len(names) > 1 else ""
    return f"touch the {OBJECTS[seed % 3].replace('_', ' ')}{hand}"


def test_same_sight_same_motion_and_near_sight_near_motion(teacher: ScriptedPolicy) -> None:
    rng = np.random.default_rng(0)
    differences = []
    for seed in range(12):
        state, objects = scene(teacher, seed)
        text = sentence(teacher, seed)
        first = call(teacher, text, state, objects)
        call(teacher, sentence(teacher, seed + 1), state + 0.1, objects)
        np.testing.assert_array_equal(call(teacher, text, state, objects), first)
        moved = {n: p + rng.uniform(-1, 1, 3) * [0.007, 0.007, 0.0] for n, p in objects.items()}
        other = call(teacher, text, state + rng.uniform(-0.01, 0.01, state.shape), moved)
        differences.append(np.abs(other - first).max())
    assert max(differences) < 0.12, differences


def test_unnamed_blocks_play_no_part(teacher: ScriptedPolicy) -> None:
    state, objects = scene(teacher, 4)
    before = call(teacher, sentence(teacher, 0), state, objects)  # the red block
    objects["green_block"] = objects["green_block"] + [0.03, 0.02, 0.0]
    np.testing.assert_array_equal(call(teacher, sentence(teacher, 0), state, objects), before)


def test_replanning_goes_on_as_announced(teacher: ScriptedPolicy) -> None:
    contract = teacher._contract
    state, objects = scene(teacher, 7)
    teacher.reset(sentence(teacher, 7))
    first = teacher.infer(Window((Observation(1.0, {}, state),), objects, cadence="async"))
    rows = 6
    values = dict(zip(first.names, first.actions[rows], strict=True))
    state = np.array([values.get(n, 0.0) for n in contract.state_names])
    t = 1.0 + rows * contract.rates.step_period
    again = teacher.infer(Window((Observation(t, {}, state),), objects, cadence="async"))
    np.testing.assert_allclose(again.actions[:-rows], first.actions[rows:], atol=0.02)


def test_smooth_step() -> None:
    assert [smooth(s) for s in (-1.0, 0.0, 0.5, 1.0, 2.0)] == [0.0, 0.0, 0.5, 1.0, 1.0]
