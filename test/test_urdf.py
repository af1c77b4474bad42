"""The URDFs against the vendors' joint tables, against MuJoCo, and as physical models."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from functools import cache
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest
import yaml

from wam_ros.contract.kinematics import Kinematics
from wam_ros.contract.load import load_contract
from wam_ros.sim.urdf import UrdfError, expand

ROOT = Path(__file__).resolve().parents[1]
ROBOTS = ("agibot_g1", "franka_droid", "yam")


@cache
def urdf(robot: str) -> str:
    return expand(ROOT / "urdf" / f"{robot}.urdf.xacro")


@cache
def table(robot: str) -> dict[str, Any]:
    data = yaml.safe_load((ROOT / "test" / "data" / "robots" / f"{robot}.yaml").read_text())
    assert isinstance(data, dict)
    return data


def quaternion(axis: list[float], angle: float) -> np.ndarray:
    return np.array([math.cos(angle / 2), *(math.sin(angle / 2) * np.asarray(axis))])


def table_poses(robot: str, q: dict[str, float]) -> dict[str, np.ndarray]:
    """Poses from the vendor's table; rotations by MuJoCo's quaternions, not by our own code."""

    def pose(xyz: list[float], *turns: np.ndarray) -> np.ndarray:
        quat = np.array([1.0, 0.0, 0.0, 0.0])
        for turn in turns:
            product = np.zeros(4)
            mujoco.mju_mulQuat(product, quat, turn)
            quat = product
        matrix = np.zeros(9)
        mujoco.mju_quat2Mat(matrix, quat)
        result = np.eye(4)
        result[:3, :3], result[:3, 3] = matrix.reshape(3, 3), xyz
        return result

    poses = {table(robot)["root"]: np.eye(4)}
    waiting = list(table(robot)["joints"])
    while waiting:
        joint = next(j for j in waiting if j["parent"] in poses)
        waiting.remove(joint)
        roll, pitch, yaw = joint["rpy"]
        local = pose(
            joint["xyz"],
            quaternion([0, 0, 1], yaw),
            quaternion([0, 1, 0], pitch),
            quaternion([1, 0, 0], roll),
        )
        value = q.get(joint["name"], 0.0)
        if joint["type"] == "revolute":
            local = local @ pose([0, 0, 0], quaternion(joint["axis"], value))
        elif joint["type"] == "prismatic":
            local = local @ pose([value * a for a in joint["axis"]])
        poses[joint["child"]] = poses[joint["parent"]] @ local
    return poses


def random_poses(model: Kinematics, count: int) -> list[dict[str, float]]:
    rng = np.random.default_rng(7)
    joints = [model.joints[name] for name in model.moving]
    return [{j.name: float(rng.uniform(j.lower, j.upper)) for j in joints} for _ in range(count)]


@pytest.mark.parametrize("robot", ROBOTS)
def test_link_poses_agree_with_vendor_table_and_mujoco(robot: str) -> None:
    ours = Kinematics(urdf(robot))
    compiled = mujoco.MjModel.from_xml_string(urdf(robot))
    data = mujoco.MjData(compiled)
    for q in random_poses(ours, 50):
        for name, value in q.items():
            data.qpos[compiled.joint(name).qposadr[0]] = value
        mujoco.mj_kinematics(compiled, data)
        poses = ours.all_links(q)
        reference = table_poses(robot, q)
        assert set(reference) <= set(poses)
        for link, pose in reference.items():
            np.testing.assert_allclose(poses[link], pose, atol=1e-5, err_msg=f"table: {link}")
        for link, pose in poses.items():
            # The body of the root may be merged into MuJoCo's world; it is the identity anyway.
            if link == ours.root:
                continue
            body = data.body(link)
            np.testing.assert_allclose(pose[:3, 3], body.xpos, atol=1e-5, err_msg=link)
            np.testing.assert_allclose(
                pose[:3, :3], body.xmat.reshape(3, 3), atol=1e-5, err_msg=link
            )


@pytest.mark.parametrize("robot", ROBOTS)
def test_joint_limits_are_the_vendors(robot: str) -> None:
    ours = Kinematics(urdf(robot))
    for joint in table(robot)["joints"]:
        for key in ("lower", "upper", "velocity"):
            if key in joint:
                assert getattr(ours.joints[joint["name"]], key) == pytest.approx(
                    joint[key], abs=1e-6
                ), f"{joint['name']} {key}"


@pytest.mark.parametrize("side, sign", [("l", 1.0), ("r", -1.0)])
def test_g1_ready_pose_puts_gripper_centres_where_documented(side: str, sign: float) -> None:
    angles = (-1.0744, 0.6110, 0.2795, -1.2840, 0.7304, 1.4954, -0.1876)
    q = {"idx01_body_joint1": 0.3, "idx02_body_joint2": 0.5236}
    first = 21 if side == "l" else 61
    for i, angle in enumerate(angles):
        q[f"idx{first + i}_arm_{side}_joint{i + 1}"] = sign * angle
    centre = Kinematics(urdf("agibot_g1")).fk(q, f"gripper_{side}_center_link")[:3, 3]
    # The documented figure is rounded; the right arm's mount is 2 mm longer than the left one's.
    np.testing.assert_allclose(centre, [0.626, sign * 0.16, 1.057], atol=2.5e-3)


def test_franka_reset_pose_points_straight_down() -> None:
    q = dict(
        zip(
            (f"fr3_joint{i}" for i in range(1, 8)),
            np.pi * np.array([0, -1 / 5, 0, -4 / 5, 0, 3 / 5, 0]),
            strict=True,
        )
    )
    flange = Kinematics(urdf("franka_droid")).fk(q, "fr3_link8")
    np.testing.assert_allclose(flange[:3, 3], [0.360, 0.0, 0.490], atol=1e-3)
    np.testing.assert_allclose(flange[:3, 2], [0.0, 0.0, -1.0], atol=1e-6)


@pytest.mark.parametrize("robot", ROBOTS)
def test_inertias_are_physical(robot: str) -> None:
    found = ET.fromstring(urdf(robot)).findall("link/inertial")
    assert len(found) > 5
    for inertial in found:
        tensor = inertial.find("inertia")
        mass = inertial.find("mass")
        assert tensor is not None and mass is not None
        i = {key: float(value) for key, value in tensor.attrib.items()}
        moments = np.linalg.eigvalsh(
            [
                [i["ixx"], i["ixy"], i["ixz"]],
                [i["ixy"], i["iyy"], i["iyz"]],
                [i["ixz"], i["iyz"], i["izz"]],
            ]
        )
        assert float(mass.get("value", "0")) > 0.0
        assert moments[0] > 0.0 and moments[0] + moments[1] >= moments[2]


@pytest.mark.parametrize("robot", ROBOTS)
def test_mujoco_keeps_every_link_and_visual(robot: str) -> None:
    root = ET.fromstring(urdf(robot))
    model = mujoco.MjModel.from_xml_string(urdf(robot))
    assert model.ngeom == len(root.findall("link/visual")) > 10
    assert len({tuple(colour) for colour in model.geom_rgba}) >= 2
    moving = [j for j in root.findall("joint") if j.get("type") != "fixed"]
    assert model.njnt == len(moving)


@pytest.mark.parametrize("robot", ROBOTS)
def test_contract_names_exist_and_fit_inside_the_urdf_limits(robot: str) -> None:
    contract = load_contract(robot)
    ours = Kinematics(urdf(robot))
    assert contract.root_link == ours.root
    for camera in contract.cameras:
        assert camera.parent in ours.links
    for group in contract.groups:
        if group.tip_link:
            assert group.tip_link in ours.links
        for joint in group.joints:
            for name, scale, offset in joint.urdf:
                limit = ours.joints[name]
                for value in (joint.limits.lower, joint.limits.upper, joint.home):
                    q = scale * value + offset
                    assert limit.lower - 1e-6 <= q <= limit.upper + 1e-6, f"{joint.name} {value}"


FINGERS = {
    "agibot_g1": [
        ("left_finger_joint", "left_finger_link", (1, 2), 0.045, "gripper_l_base_link", 1),
        ("right_finger_joint", "right_finger_link", (1, 2), 0.045, "gripper_r_base_link", 1),
    ],
    "franka_droid": [("finger_joint", "finger_link", (1, 2), 0.0425, "robotiq_base_link", 0)],
    "yam": [
        ("left_joint", "left_tip_", (7, 8), 0.0475, "left_gripper", 0),
        ("right_joint", "right_tip_", (7, 8), 0.0475, "right_gripper", 0),
    ],
}


@pytest.mark.parametrize("robot", ROBOTS)
def test_fingers_touch_when_closed_and_part_by_twice_the_travel(robot: str) -> None:
    model = mujoco.MjModel.from_xml_string(urdf(robot))
    data = mujoco.MjData(model)
    for prefix, link, numbers, travel, base, axis in FINGERS[robot]:
        gaps = []
        for q in (0.0, travel):
            for number in numbers:
                data.qpos[model.joint(f"{prefix}{number}").qposadr[0]] = q
            mujoco.mj_kinematics(model, data)
            frame = data.body(base)
            ends = []
            for number in numbers:
                word = {7: "left", 8: "right"}.get(number, str(number))
                geom = model.body(f"{link}{word}").geomadr[0]
                local = frame.xmat.reshape(3, 3).T @ (data.geom_xpos[geom] - frame.xpos)
                turn = frame.xmat.reshape(3, 3).T @ data.geom_xmat[geom].reshape(3, 3)
                half = float(np.abs(turn[axis]) @ model.geom_size[geom])
                ends.append((local[axis] - half, local[axis] + half))
            first, second = sorted(ends)
            gaps.append(second[0] - first[1])
        assert gaps == pytest.approx([0.0, 2 * travel], abs=1e-5)


def test_expand_names_the_file_and_the_fault(tmp_path: Path) -> None:
    with pytest.raises(UrdfError, match=r"no URDF at .*gone\.urdf"):
        expand(tmp_path / "gone.urdf")
    broken = tmp_path / "broken.urdf.xacro"
    broken.write_text("<robot><link name='a'></robot>")
    with pytest.raises(UrdfError, match=r"broken\.urdf\.xacro"):
        expand(broken)
    broken.write_text(
        "<robot name='r' xmlns:xacro='http://www.ros.org/wiki/xacro'>"
        "<link name='${missing_name}'/></robot>"
    )
    with pytest.raises(UrdfError, match="missing_name"):
        expand(broken)
    broken.write_text("<scene/>")
    with pytest.raises(UrdfError, match="<robot>"):
        expand(broken)
