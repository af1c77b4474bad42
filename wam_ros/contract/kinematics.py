"""Forward and inverse kinematics of one URDF tree, in numpy only."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wam_ros.contract import ik as _ik

Array = NDArray[np.float64]
IkResult = _ik.IkResult

MOVING = ("revolute", "continuous", "prismatic")


class KinematicsError(ValueError):
    """The URDF, a link name or a joint name cannot be used."""


@dataclass(frozen=True)
class UrdfJoint:
    """One joint of the tree.

    Attributes
    ----------
    origin : (4, 4) array
        Pose of the child frame in the parent frame at q = 0, metres.
    axis : (3,) array
        Unit axis in the child frame.
    lower, upper : float
        Limits, rad or m; infinite for ``continuous``.
    velocity : float
        Speed limit, rad/s or m/s; infinite when the URDF gives none.
    """

    name: str
    kind: str
    parent: str
    child: str
    origin: Array
    axis: Array
    lower: float
    upper: float
    velocity: float


def rpy_matrix(rpy: Sequence[float]) -> Array:
    """Rotation (3, 3) of URDF roll, pitch, yaw angles in rad (fixed axes x, y, z)."""
    (cr, cp, cy), (sr, sp, sy) = np.cos(rpy), np.sin(rpy)
    return np.array(
        [
            [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
            [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
            [-sp, cp * sr, cp * cr],
        ]
    )


def transform(xyz: Sequence[float], rpy: Sequence[float]) -> Array:
    """Pose (4, 4) of a translation in metres and roll, pitch, yaw in rad."""
    pose = np.eye(4)
    pose[:3, :3] = rpy_matrix(rpy)
    pose[:3, 3] = xyz
    return pose


def axis_angle(axis: Array, angle: float) -> Array:
    """Rotation (3, 3) by ``angle`` rad about the unit ``axis`` (3,)."""
    x, y, z = axis
    cross: Array = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    result: Array = np.eye(3) + math.sin(angle) * cross + (1.0 - math.cos(angle)) * (cross @ cross)
    return result


def _parts(joint: UrdfJoint) -> tuple[Array, Array]:
    """What a moving joint adds to its origin per metre, or per sine and per 1 - cosine."""
    first, second = np.zeros((4, 4)), np.zeros((4, 4))
    if joint.kind == "prismatic":
        first[:3, 3] = joint.axis
    else:
        x, y, z = joint.axis
        cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
        first[:3, :3], second[:3, :3] = cross, cross @ cross
    return joint.origin @ first, joint.origin @ second


def _numbers(text: str, joint: str) -> list[float]:
    try:
        values = [float(word) for word in text.split()]
    except ValueError:
        values = []
    if len(values) != 3 or not all(map(math.isfinite, values)):
        raise KinematicsError(f"joint '{joint}': need three finite numbers, got '{text}'")
    return values


def _joint(node: ElementTree.Element) -> UrdfJoint:
    name, kind = node.get("name", ""), node.get("type", "")
    if kind not in (*MOVING, "fixed"):
        raise KinematicsError(
            f"joint '{name}' has type '{kind}'; use one of {', '.join(MOVING)} or fixed"
        )
    parent, child = node.find("parent"), node.find("child")
    if parent is None or child is None:
        raise KinematicsError(f"joint '{name}' needs a <parent> and a <child> element")
    place = node.find("origin")
    xyz = "0 0 0" if place is None else place.get("xyz", "0 0 0")
    rpy = "0 0 0" if place is None else place.get("rpy", "0 0 0")
    turn = node.find("axis")
    axis = np.array(_numbers("1 0 0" if turn is None else turn.get("xyz", "1 0 0"), name))
    length = float(np.linalg.norm(axis))
    if length < 1e-9:
        raise KinematicsError(f"joint '{name}' has a zero axis")
    limit = node.find("limit")
    bounds = {} if limit is None else dict(limit.attrib)
    if kind in ("revolute", "prismatic") and not {"lower", "upper"} <= bounds.keys():
        raise KinematicsError(f"joint '{name}' needs <limit lower=.. upper=..>")
    endless = kind == "continuous" or kind == "fixed"
    return UrdfJoint(
        name=name,
        kind=kind,
        parent=parent.get("link", ""),
        child=child.get("link", ""),
        origin=transform(_numbers(xyz, name), _numbers(rpy, name)),
        axis=axis / length,
        lower=-math.inf if endless else float(bounds["lower"]),
        upper=math.inf if endless else float(bounds["upper"]),
        velocity=float(bounds.get("velocity", math.inf)),
    )


class Kinematics:
    """Kinematic tree of a robot.

    Parameters
    ----------
    urdf_xml : str
        Plain URDF text (expand xacro first, see `wam_ros.sim.urdf.expand`).

    Attributes
    ----------
    root : str
        The link without a parent.
    links : tuple of str
        All links, parents before children.
    joints : dict of str to UrdfJoint
        All joints, fixed ones too, in tree order.

    Raises
    ------
    KinematicsError
        The text is not XML, or the joints do not form one tree.
    """

    def __init__(self, urdf_xml: str) -> None:
        try:
            robot = ElementTree.fromstring(urdf_xml)
        except ElementTree.ParseError as error:
            raise KinematicsError(f"URDF is not well-formed XML: {error}") from error
        names = [node.get("name", "") for node in robot.findall("link")]
        joints = [_joint(node) for node in robot.findall("joint")]
        self._above: dict[str, UrdfJoint] = {}
        for joint in joints:
            for link in (joint.parent, joint.child):
                if link not in names:
                    raise KinematicsError(f"joint '{joint.name}' names unknown link '{link}'")
            if joint.child in self._above:
                raise KinematicsError(f"link '{joint.child}' has two parent joints")
            self._above[joint.child] = joint
        roots = [name for name in names if name not in self._above]
        if len(roots) != 1 or len(set(names)) != len(names):
            raise KinematicsError(f"URDF must be one tree of unique links; roots found: {roots}")
        self.root = roots[0]
        order = [self.root]
        for link in order:  # grows while it is walked: breadth first
            order.extend(joint.child for joint in joints if joint.parent == link)
        if len(order) != len(names):
            raise KinematicsError("URDF has a closed loop of joints; a tree is needed")
        self.links = tuple(order)
        self.joints = {self._above[link].name: self._above[link] for link in order[1:]}
        if len(self.joints) != len(joints):
            raise KinematicsError("URDF joint names must be unique")
        self._parts = {j.name: _parts(j) for j in joints if j.kind != "fixed"}
        self._paths: dict[str, list[UrdfJoint]] = {}

    @property
    def moving(self) -> tuple[str, ...]:
        """Names of the joints that move, in tree order."""
        return tuple(name for name, joint in self.joints.items() if joint.kind in MOVING)

    def _check_link(self, link: str) -> None:
        if link != self.root and link not in self._above:
            raise KinematicsError(f"unknown link '{link}'; the URDF has {', '.join(self.links)}")

    def chain(self, link: str) -> list[UrdfJoint]:
        """Joints from the root to ``link``, fixed ones too."""
        return list(self._path(link))

    def _path(self, link: str) -> list[UrdfJoint]:
        if link not in self._paths:
            self._check_link(link)
            path: list[UrdfJoint] = []
            here = link
            while here != self.root:
                path.append(self._above[here])
                here = path[-1].parent
            self._paths[link] = path[::-1]
        return self._paths[link]

    def step(self, joint: UrdfJoint, q: Mapping[str, float]) -> Array:
        """Pose (4, 4) of the joint's child in its parent; see `fk` for ``q``."""
        return self._local(joint, q)

    def _local(self, joint: UrdfJoint, q: Mapping[str, float]) -> Array:
        """Pose of the child in the parent; the parts that do not change are multiplied out."""
        if joint.kind == "fixed":
            return joint.origin
        value = float(q.get(joint.name, 0.0))
        first, second = self._parts[joint.name]
        if joint.kind == "prismatic":
            return np.asarray(joint.origin + value * first)
        return np.asarray(joint.origin + math.sin(value) * first + (1.0 - math.cos(value)) * second)

    def fk(self, q: Mapping[str, float], link: str, base: str | None = None) -> Array:
        """Pose of ``link`` in ``base`` (default: the root link).

        Parameters
        ----------
        q : mapping
            Joint positions, rad or m; a joint left out counts as 0, other names are ignored.

        Returns
        -------
        (4, 4) array, metres.
        """
        pose = np.eye(4)
        for joint in self._path(link):
            pose = pose @ self._local(joint, q)
        if base is None or base == self.root:
            return pose
        return np.linalg.inv(self.fk(q, base)) @ pose

    def fk_many(self, q: Mapping[str, Array], link: str) -> Array:
        """Poses (N, 4, 4) of ``link`` in the root for N positions (N,) of every joint in ``q``.

        As `fk`, many times faster.
        """
        pose = np.tile(np.eye(4), (len(next(iter(q.values()))), 1, 1))
        for joint in self._path(link):
            if joint.kind == "fixed" or joint.name not in q:
                pose = pose @ self._local(joint, {})
                continue
            first, second = self._parts[joint.name]
            value = np.asarray(q[joint.name], np.float64)[:, None, None]
            if joint.kind == "prismatic":
                pose = pose @ (joint.origin + value * first)
            else:
                pose = pose @ (joint.origin + np.sin(value) * first + (1 - np.cos(value)) * second)
        return pose

    def all_links(self, q: Mapping[str, float]) -> dict[str, Array]:
        """Pose (4, 4) of every link in the root link; see `fk` for ``q``."""
        poses = {self.root: np.eye(4)}
        for joint in self.joints.values():
            poses[joint.child] = poses[joint.parent] @ self._local(joint, q)
        return poses

    def jacobian(self, q: Mapping[str, float], link: str, joints: Sequence[str]) -> Array:
        """Velocity of the origin of ``link`` for unit speeds of ``joints``, in root axes.

        Returns
        -------
        (6, len(joints)) array: rows 0..2 linear (m), rows 3..5 angular (rad). A joint that does
        not carry ``link`` has a zero column.
        """
        for name in joints:
            if name not in self.joints:
                raise KinematicsError(f"unknown joint '{name}'; the URDF has no such joint")
        pose = np.eye(4)
        column = {name: i for i, name in enumerate(joints)}
        result = np.zeros((6, len(joints)))
        turning: list[int] = []
        origins: list[Array] = []
        for joint in self._path(link):
            pose = pose @ self._local(joint, q)
            i = column.get(joint.name)
            if i is None or joint.kind == "fixed":
                continue
            axis = pose[:3, :3] @ joint.axis
            if joint.kind == "prismatic":
                result[:3, i] = axis
            else:
                result[3:, i] = axis
                turning.append(i)
                origins.append(pose[:3, 3])
        if turning:
            x, y, z = result[3:, turning]
            a, b, c = pose[:3, 3, None] - np.array(origins).T
            result[:3, turning] = np.array([y * c - z * b, z * a - x * c, x * b - y * a])
        return result

    def ik(
        self,
        link: str,
        target_position: ArrayLike,
        q0: Mapping[str, float],
        joints: Sequence[str],
        limits: Mapping[str, tuple[float, float]] | None = None,
        rotation: ArrayLike | None = None,
        rotation_weight: float = 0.3,
        rest_weight: float = 0.05,
        damping: float = 0.02,
        iterations: int = 100,
        tolerance: float = 1e-4,
        rotation_tolerance: float = 1e-3,
        restarts: int = 0,
    ) -> IkResult:
        """Find joint positions that bring the origin of ``link`` to a point, staying near ``q0``.

        Damped least squares with a step limit; a joint at its limit is taken out of the step, and
        what freedom is left pulls the joints back to ``q0``.

        Parameters
        ----------
        target_position : (3,) array
            Target in the root link, m.
        joints : sequence of str
            The joints that may move; all others stay at ``q0``.
        limits : mapping of joint to (lower, upper), optional
            Tighter limits, rad or m; the URDF's limits hold for joints not named.
        rotation : (3, 3) array, optional
            Wanted orientation of ``link`` in the root link.
        rotation_weight : float
            Metres that one rad of orientation error counts for.
        rest_weight : float
            Share (0..1) of the way back to ``q0`` taken in the null space at each step.
        restarts : int
            Further tries from (repeatable) random starts when the first one gets stuck; a far
            rotation often needs some, but the answer may then lie far from ``q0``.

        Returns
        -------
        IkResult
            The best configuration met; check ``converged``.

        Raises
        ------
        KinematicsError
            Unknown or fixed joint, unknown link, or a target or start that is not finite.
        """
        if not joints or any(self.joints[j].kind == "fixed" for j in joints if j in self.joints):
            raise KinematicsError(f"ik needs one or more moving joints, got {list(joints)}")
        start = np.array(list(q0.values()), dtype=float)
        if not (np.all(np.isfinite(np.asarray(target_position))) and np.all(np.isfinite(start))):
            raise KinematicsError("ik target and q0 must be finite numbers")
        return _ik.solve(
            self,
            link,
            np.asarray(target_position, dtype=float).reshape(3),
            None if rotation is None else np.asarray(rotation, dtype=float).reshape(3, 3),
            dict(q0),
            list(joints),
            dict(limits or {}),
            (rotation_weight, rest_weight, damping),
            iterations,
            (tolerance, rotation_tolerance),
            restarts,
        )
