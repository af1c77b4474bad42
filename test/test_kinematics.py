"""Kinematics and inverse kinematics: identities, limits and errors."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wam_ros.contract.ik import rotation_vector
from wam_ros.contract.kinematics import Kinematics, KinematicsError, axis_angle, rpy_matrix
from wam_ros.sim.urdf import expand

URDF = Path(__file__).resolve().parents[1] / "urdf"
ARMS = {
    "agibot_g1": ("gripper_l_center_link", [f"idx2{i}_arm_l_joint{i}" for i in range(1, 8)]),
    "franka_droid": ("robotiq_tcp", [f"fr3_joint{i}" for i in range(1, 8)]),
    "yam": ("right_tcp", [f"right_joint{i}" for i in range(1, 7)]),
}
READY = {
    "agibot_g1": [-1.0744, 0.6110, 0.2795, -1.2840, 0.7304, 1.4954, -0.1876],
    "franka_droid": [0.0, -0.628, 0.0, -2.513, 0.0, 1.885, 0.0],
    "yam": [0.0, 1.047, 1.047, 0.0, 0.0, 0.0],
}
TINY = """<robot name="r"><link name="a"/><link name="b"/><link name="c"/>
<joint name="turn" type="revolute"><parent link="a"/><child link="b"/><axis xyz="0 0 2"/>
<limit lower="-1" upper="1"/></joint>
<joint name="slide" type="prismatic"><parent link="b"/><child link="c"/><origin xyz="1 0 0"/>
<axis xyz="0 1 0"/><limit lower="0" upper="0.5"/></joint></robot>"""


@cache
def model(robot: str) -> Kinematics:
    return Kinematics(expand(URDF / f"{robot}.urdf.xacro"))


def ready(robot: str) -> dict[str, float]:
    q = dict(zip(ARMS[robot][1], READY[robot], strict=True))
    if robot == "agibot_g1":
        q |= {"idx01_body_joint1": 0.3, "idx02_body_joint2": 0.5236}
    return q


def test_tiny_arm_by_hand() -> None:
    arm = Kinematics(TINY)
    assert arm.root == "a" and arm.moving == ("turn", "slide")
    q = {"turn": math.pi / 2, "slide": 0.25}
    np.testing.assert_allclose(arm.fk(q, "c")[:3, 3], [-0.25, 1.0, 0.0], atol=1e-12)
    np.testing.assert_allclose(arm.fk(q, "c", base="b")[:3, 3], [1.0, 0.25, 0.0], atol=1e-12)
    jacobian = arm.jacobian(q, "c", ["slide", "turn"])
    np.testing.assert_allclose(jacobian[:, 0], [-1, 0, 0, 0, 0, 0], atol=1e-12)
    np.testing.assert_allclose(jacobian[:, 1], [-1, -0.25, 0, 0, 0, 1], atol=1e-12)
    # A joint beyond the link does not move it.
    np.testing.assert_array_equal(arm.jacobian(q, "b", ["slide"]), np.zeros((6, 1)))


@pytest.mark.parametrize("robot", ARMS)
def test_jacobian_is_the_derivative_of_fk(robot: str) -> None:
    arm, (link, joints) = model(robot), ARMS[robot]
    if robot == "agibot_g1":
        joints = ["idx01_body_joint1", "idx02_body_joint2", *joints]
    q, step = ready(robot), 1e-6
    jacobian = arm.jacobian(q, link, joints)
    for column, joint in enumerate(joints):
        plus = arm.fk(q | {joint: q[joint] + step}, link)
        minus = arm.fk(q | {joint: q[joint] - step}, link)
        linear = (plus[:3, 3] - minus[:3, 3]) / (2 * step)
        angular = rotation_vector(plus[:3, :3] @ minus[:3, :3].T) / (2 * step)
        np.testing.assert_allclose(jacobian[:3, column], linear, atol=1e-6)
        np.testing.assert_allclose(jacobian[3:, column], angular, atol=1e-6)


@pytest.mark.parametrize("robot", ARMS)
def test_all_links_equals_fk_link_by_link(robot: str) -> None:
    arm, q = model(robot), ready(robot)
    poses = arm.all_links(q)
    assert set(poses) == set(arm.links)
    for link, pose in poses.items():
        np.testing.assert_allclose(pose, arm.fk(q, link), atol=1e-12)


@pytest.mark.parametrize("robot", ARMS)
def test_many_poses_at_once_equal_those_one_by_one(robot: str) -> None:
    tree, (tip, _) = model(robot), ARMS[robot]
    rng = np.random.default_rng(0)
    # Prismatic ones, too, and one left out, which counts as 0.
    q = {n: rng.uniform(-0.5, 0.5, 7) for n in tree.moving[1:]}
    found = tree.fk_many(q, tip)
    for i in range(7):
        one = tree.fk({n: float(v[i]) for n, v in q.items()}, tip)
        np.testing.assert_allclose(found[i], one, atol=1e-12)


@pytest.mark.parametrize("robot", ARMS)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_position_ik_reaches_nearby_points_inside_limits(robot: str, data: st.DataObject) -> None:
    arm, (link, joints) = model(robot), ARMS[robot]
    q0 = ready(robot)
    # The target is the tip at a random pose within 0.4 rad of ready, so it can be reached.
    near = {
        name: float(
            np.clip(
                q0[name] + data.draw(st.floats(-0.4, 0.4), label=name),
                arm.joints[name].lower,
                arm.joints[name].upper,
            )
        )
        for name in joints
    }
    target = arm.fk(q0 | near, link)[:3, 3]
    result = arm.ik(link, target, q0, joints)
    assert result.converged
    assert np.linalg.norm(arm.fk(result.q, link)[:3, 3] - target) < 1e-4
    for name in joints:
        assert arm.joints[name].lower <= result.q[name] <= arm.joints[name].upper
    untouched = q0.keys() - set(joints)
    assert {name: result.q[name] for name in untouched} == {name: q0[name] for name in untouched}


@pytest.mark.parametrize("robot", ARMS)
def test_pose_ik_meets_position_and_rotation(robot: str) -> None:
    arm, (link, joints) = model(robot), ARMS[robot]
    q0 = ready(robot)
    wanted = arm.fk(q0 | {name: q0[name] + 0.15 for name in joints}, link)
    result = arm.ik(link, wanted[:3, 3], q0, joints, rotation=wanted[:3, :3])
    assert result.converged
    got = arm.fk(result.q, link)
    np.testing.assert_allclose(got[:3, 3], wanted[:3, 3], atol=1e-4)
    assert np.linalg.norm(rotation_vector(wanted[:3, :3] @ got[:3, :3].T)) < 1e-3


def test_restarts_find_what_one_descent_misses() -> None:
    arm, (link, joints) = model("agibot_g1"), ARMS["agibot_g1"]
    q0, rng = ready("agibot_g1"), np.random.default_rng(3)
    missed = 0
    for _ in range(11):
        far = {j: float(rng.uniform(arm.joints[j].lower, arm.joints[j].upper)) for j in joints}
        wanted = arm.fk(q0 | far, link)
        turn = wanted[:3, :3]
        missed += not arm.ik(link, wanted[:3, 3], q0, joints, rotation=turn).converged
        result = arm.ik(link, wanted[:3, 3], q0, joints, rotation=turn, restarts=20)
        assert result.converged
        np.testing.assert_allclose(arm.fk(result.q, link), wanted, atol=2e-3)
        assert all(arm.joints[j].lower <= result.q[j] <= arm.joints[j].upper for j in joints)
        again = arm.ik(link, wanted[:3, 3], q0, joints, rotation=turn, restarts=20)
        assert again == result
    assert missed > 0


def test_ik_keeps_tighter_limits_and_reports_failure() -> None:
    arm, (link, joints) = model("franka_droid"), ARMS["franka_droid"]
    q0 = ready("franka_droid")
    limits = {name: (q0[name] - 0.05, q0[name] + 0.05) for name in joints}
    result = arm.ik(link, [0.3, 0.5, 0.3], q0, joints, limits=limits)
    assert not result.converged and result.position_error > 0.1
    assert all(limits[j][0] - 1e-12 <= result.q[j] <= limits[j][1] + 1e-12 for j in joints)
    start = float(np.linalg.norm(arm.fk(q0, link)[:3, 3] - [0.3, 0.5, 0.3]))
    assert result.position_error < start
    far = arm.ik(link, [3.0, 0.0, 0.3], q0, joints)
    assert not far.converged and far.position_error > 1.5


def test_null_space_pull_stays_nearer_to_the_start() -> None:
    arm, (link, joints) = model("franka_droid"), ARMS["franka_droid"]
    q0 = ready("franka_droid")
    target = [0.45, 0.25, 0.25]

    def travel(rest_weight: float) -> float:
        result = arm.ik(link, target, q0, joints, rest_weight=rest_weight, tolerance=1e-9)
        assert result.position_error < 1e-6
        return float(np.linalg.norm([result.q[j] - q0[j] for j in joints]))

    assert travel(0.2) < travel(0.0) - 1e-6


@given(
    st.lists(st.floats(-1, 1), min_size=3, max_size=3).filter(lambda v: np.linalg.norm(v) > 0.1),
    st.floats(0.0, math.pi),
)
def test_rotation_vector_inverts_axis_angle(axis: list[float], angle: float) -> None:
    unit = np.asarray(axis) / np.linalg.norm(axis)
    turn = axis_angle(unit, angle)
    vector = rotation_vector(turn)
    assert np.linalg.norm(vector) == pytest.approx(angle, abs=1e-6)
    if angle > 1e-3:
        back = axis_angle(vector / np.linalg.norm(vector), float(np.linalg.norm(vector)))
        np.testing.assert_allclose(back, turn, atol=1e-6)


def test_rpy_is_roll_then_pitch_then_yaw_about_fixed_axes() -> None:
    z_then = axis_angle(np.array([0.0, 0.0, 1.0]), 0.3) @ axis_angle(
        np.array([0.0, 1.0, 0.0]), -0.5
    )
    expected = z_then @ axis_angle(np.array([1.0, 0.0, 0.0]), 1.1)
    np.testing.assert_allclose(rpy_matrix([1.1, -0.5, 0.3]), expected, atol=1e-12)


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("</robot>", "", "not well-formed"),
        ('<child link="c"/>', '<child link="d"/>', "unknown link 'd'"),
        ('<child link="c"/>', '<child link="b"/>', "two parent joints"),
        ('<parent link="b"/>', '<parent link="c"/>', "closed loop"),
        ('<link name="c"/>', '<link name="c"/><link name="e"/>', "one tree"),
        ('axis xyz="0 1 0"', 'axis xyz="0 0 0"', "zero axis"),
        ('axis xyz="0 1 0"', 'axis xyz="0 nan 0"', "three finite numbers"),
        ('type="prismatic"', 'type="floating"', "type 'floating'"),
        ('<limit lower="-1" upper="1"/>', "", "needs <limit"),
        ('name="slide"', 'name="turn"', "unique"),
    ],
)
def test_bad_urdf_is_refused(old: str, new: str, message: str) -> None:
    assert old in TINY
    with pytest.raises(KinematicsError, match=message):
        Kinematics(TINY.replace(old, new))


def test_unknown_names_and_bad_numbers_are_refused() -> None:
    arm = Kinematics(TINY)
    with pytest.raises(KinematicsError, match="unknown link 'z'"):
        arm.fk({}, "z")
    with pytest.raises(KinematicsError, match="unknown joint 'z'"):
        arm.ik("c", [1, 0, 0], {}, ["z"])
    with pytest.raises(KinematicsError, match="moving joints"):
        arm.ik("c", [1, 0, 0], {}, [])
    with pytest.raises(KinematicsError, match="finite"):
        arm.ik("c", [math.nan, 0, 0], {}, ["turn"])
