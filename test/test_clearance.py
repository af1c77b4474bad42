"""Capsules enclose the shapes, distances are right, and only coming closer trips."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wam_ros.contract import load_contract
from wam_ros.contract.kinematics import Kinematics
from wam_ros.contract.model import Safety
from wam_ros.execution.clearance import Space, _enclose, segment_distance
from wam_ros.resources import share
from wam_ros.sim.urdf import expand

ROBOTS = ("agibot_g1", "franka_droid", "yam")


def model(robot: str, **safety) -> tuple:
    contract = load_contract(robot)
    contract = replace(contract, safety=replace(contract.safety, **safety))
    xml = expand(share() / contract.urdf)
    home = np.array([contract.joints[n].home for n in contract.control_names])
    return contract, xml, Space(contract, xml), home


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_segment_distance_is_the_least_over_a_fine_grid(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(0, 1, (8, 2, 3)), rng.normal(0, 1, (8, 2, 3))
    s = np.linspace(0, 1, 81)[:, None]
    p = a[:, :1] + s * (a[:, 1:] - a[:, :1])
    q = b[:, :1] + s * (b[:, 1:] - b[:, :1])
    grid = np.linalg.norm(p[:, :, None] - q[:, None], axis=-1).min(axis=(1, 2))
    found = segment_distance(a, b)
    assert np.all(found <= grid + 1e-9) and np.all(found >= grid - 0.06)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_capsules_enclose_their_box(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size = rng.uniform(0.02, 0.4, 3)
    parts = _enclose("link", size, np.eye(4))
    points = rng.uniform(-0.5, 0.5, (200, 3)) * size
    gaps = []
    for c in parts:
        line = np.repeat(c.ends[None], len(points), axis=0)
        dots = np.repeat(points[:, None], 2, axis=1) + np.array([[0, 0, 0], [1e-9, 0, 0]])
        gaps.append(segment_distance(line, dots) - c.radius)
    assert np.max(np.min(gaps, axis=0)) < 1e-6


@pytest.mark.parametrize("robot", ROBOTS)
def test_frames_agree_with_the_kinematics(robot: str) -> None:
    contract, xml, space, home = model(robot)
    tree = Kinematics(xml)
    rng = np.random.default_rng(1)
    for _ in range(5):
        q = home + rng.uniform(-0.3, 0.3, len(home))
        joints = {
            u: s * v + o
            for n, v in zip(contract.control_names, q, strict=True)
            for u, s, o in contract.joints[n].urdf
        }
        frames = space._chains.frames(q[None])[0]
        for link in tree.links:
            node, offset = space._chains.locate(link)
            np.testing.assert_allclose(frames[node] @ offset, tree.fk(joints, link), atol=1e-9)


@pytest.mark.parametrize("robot", ROBOTS)
def test_home_pose_passes_and_few_pairs_are_ignored(robot: str) -> None:
    _, _, space, home = model(robot)
    assert space.check(home, home) == ""
    assert len(space.ignored) <= 0.15 * (len(space.ignored) + len(space.pairs))


def test_fingers_of_two_hands_may_meet_but_a_finger_not_the_other_hand() -> None:
    _, _, space, _ = model("agibot_g1")
    fingers = {"left_finger_link1", "left_finger_link2", "right_finger_link1", "right_finger_link2"}
    assert not [p for p in (*space.pairs, *space.ignored) if set(p) <= fingers]
    assert ("left_finger_link2", "gripper_r_base_link") in space.pairs


def test_arms_that_meet_trip_before_they_touch_and_may_part_again() -> None:
    contract, _, space, home = model("yam")
    names = list(contract.control_names)
    left, right = names.index("left_joint1"), names.index("right_joint1")
    space.restart(home)
    reason, pose = "", home.copy()
    for _ in range(400):
        pose[left] -= 0.01
        pose[right] += 0.01
        reason = space.check(pose, pose)
        if reason:
            break
    assert "left_" in reason and "right_" in reason and "m close to" in reason
    assert space.distances(pose[None]).min() > -0.01
    pose[left] += 0.01
    pose[right] -= 0.01
    assert space.check(pose, pose) == ""


def test_where_a_stop_would_end_counts_too() -> None:
    contract, _, space, home = model("yam")
    ahead = home.copy()
    ahead[list(contract.control_names).index("left_joint1")] -= 1.2
    ahead[list(contract.control_names).index("right_joint1")] += 1.2
    space.restart(home)
    assert space.check(home, ahead) != ""


def test_tool_may_not_leave_its_workspace() -> None:
    box = ((-1.0, -1.0, 0.0), (0.5, 1.0, 1.0))
    contract, _, space, home = model("franka_droid", workspace=box)
    assert space.check(home, home) == ""
    out = home.copy()
    for joint, by in (("fr3_joint2", 0.9), ("fr3_joint4", 1.2)):  # lean forward, reach out
        out[contract.control_names.index(joint)] += by
    assert "leaves its workspace" in space.check(out, out)
    assert contract.safety == Safety(workspace=box)
