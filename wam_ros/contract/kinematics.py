"""Forward and inverse kinematics of one URDF tree, in numpy only."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

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


@dataclass(frozen=True)
class IkResult:
    """Outcome of `Kinematics.ik`.

    Attributes
    ----------
    q : dict
        The whole configuration: ``q0`` with the solved joints replaced, rad or m.
    position_error : float
        Remaining distance to the target, m.
    rotation_error : float
        Remaining angle to the target, rad; 0 when no rotation was asked for.
    converged : bool
        Both errors are inside the tolerances.
    """

    q: dict[str, float]
    position_error: float
    rotation_error: float
    converged: bool


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
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.eye(3) + math.sin(angle) * cross + (1.0 - math.cos(angle)) * (cross @ cross)


def rotation_vector(rotation: Array) -> Array:
    """Axis times angle (3,), rad, of a rotation (3, 3); the angle is in 0..pi."""
    skew = np.array(
        [
            rotation[2, 1] - rotation[1, 2],
            rotation[0, 2] - rotation[2, 0],
            rotation[1, 0] - rotation[0, 1],
        ]
    )
    sine = 0.5 * float(np.linalg.norm(skew))
    cosine = 0.5 * (float(np.trace(rotation)) - 1.0)
    angle = math.atan2(sine, cosine)
    if sine > 1e-7:
        return skew * (angle / (2.0 * sine))
    if cosine > 0.0:
        return 0.5 * skew
    # Half a turn: the skew part vanishes, the axis is the eigenvector for eigenvalue 1.
    values, vectors = np.linalg.eigh(0.5 * (rotation + rotation.T))
    return vectors[:, int(np.argmax(values))] * angle


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

    @property
    def moving(self) -> tuple[str, ...]:
        """Names of the joints that move, in tree order."""
        return tuple(name for name, joint in self.joints.items() if joint.kind in MOVING)

    def _check_link(self, link: str) -> None:
        if link != self.root and link not in self._above:
            raise KinematicsError(f"unknown link '{link}'; the URDF has {', '.join(self.links)}")

    def chain(self, link: str) -> list[UrdfJoint]:
        """Joints from the root to ``link``, fixed ones too."""
        self._check_link(link)
        path: list[UrdfJoint] = []
        while link != self.root:
            path.append(self._above[link])
            link = path[-1].parent
        return path[::-1]

    @staticmethod
    def _local(joint: UrdfJoint, q: Mapping[str, float]) -> Array:
        if joint.kind == "fixed":
            return joint.origin
        pose = np.eye(4)
        value = float(q.get(joint.name, 0.0))
        if joint.kind == "prismatic":
            pose[:3, 3] = joint.axis * value
        else:
            pose[:3, :3] = axis_angle(joint.axis, value)
        return joint.origin @ pose

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
        for joint in self.chain(link):
            pose = pose @ self._local(joint, q)
        if base is None or base == self.root:
            return pose
        return np.linalg.inv(self.fk(q, base)) @ pose

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
        axes: dict[str, tuple[UrdfJoint, Array, Array]] = {}
        for joint in self.chain(link):
            pose = pose @ self._local(joint, q)
            axes[joint.name] = (joint, pose[:3, :3] @ joint.axis, pose[:3, 3])
        result = np.zeros((6, len(joints)))
        for column, name in enumerate(joints):
            if name not in axes or axes[name][0].kind == "fixed":
                continue
            joint, axis, origin = axes[name]
            if joint.kind == "prismatic":
                result[:3, column] = axis
            else:
                result[:3, column] = np.cross(axis, pose[:3, 3] - origin)
                result[3:, column] = axis
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

        Returns
        -------
        IkResult
            The best configuration met; check ``converged``.
        """
        return _solve(
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
        )


def _solve(
    model: Kinematics,
    link: str,
    target: Array,
    rotation: Array | None,
    q: dict[str, float],
    joints: list[str],
    limits: dict[str, tuple[float, float]],
    weights: tuple[float, float, float],
    iterations: int,
    tolerances: tuple[float, float],
) -> IkResult:
    rotation_weight, rest_weight, damping = weights
    model.jacobian(q, link, joints)  # reports unknown names before any work
    bounds = [limits.get(j, (model.joints[j].lower, model.joints[j].upper)) for j in joints]
    lower, upper = (np.array(side, dtype=float) for side in zip(*bounds, strict=True))
    x = np.clip(np.array([q.get(j, 0.0) for j in joints], dtype=float), lower, upper)
    rest = x.copy()
    rows = 3 if rotation is None else 6
    best: tuple[float, Array, float, float] | None = None
    for _ in range(iterations + 1):
        q.update(zip(joints, x.tolist(), strict=True))
        pose = model.fk(q, link)
        error = np.zeros(rows)
        error[:3] = target - pose[:3, 3]
        turn = np.zeros(3)
        if rotation is not None:
            turn = rotation_vector(rotation @ pose[:3, :3].T)
            error[3:] = rotation_weight * turn
        distance, angle = float(np.linalg.norm(error[:3])), float(np.linalg.norm(turn))
        cost = float(np.linalg.norm(error))
        if best is None or cost < best[0]:
            best = (cost, x.copy(), distance, angle)
        if distance < tolerances[0] and angle < tolerances[1]:
            break
        jac = model.jacobian(q, link, joints)[:rows]
        jac[3:] *= rotation_weight
        x = np.clip(x + _step(jac, error, rest - x, x, (lower, upper), rest_weight, damping),
                    lower, upper)
    assert best is not None
    _, x, distance, angle = best
    q.update(zip(joints, x.tolist(), strict=True))
    return IkResult(q, distance, angle, distance < tolerances[0] and angle < tolerances[1])


def _step(
    jac: Array,
    error: Array,
    to_rest: Array,
    x: Array,
    bounds: tuple[Array, Array],
    rest_weight: float,
    damping: float,
) -> Array:
    """One damped step (N,), leaving out joints that would only push on their limit."""
    # Fade the damping with the error, or the last millimetres would take many steps.
    damp = damping**2 * min(1.0, float(np.linalg.norm(error)) / 0.1) + 1e-8
    free = np.ones(x.size, dtype=bool)
    step = np.zeros(x.size)
    for _ in range(x.size):
        part = jac[:, free]
        inverse = part.T @ np.linalg.inv(part @ part.T + damp * np.eye(part.shape[0]))
        pull = rest_weight * to_rest[free]
        step = np.zeros(x.size)
        step[free] = inverse @ error + pull - inverse @ (part @ pull)
        stuck = free & (
            ((x <= bounds[0]) & (step < -1e-12)) | ((x >= bounds[1]) & (step > 1e-12))
        )
        if not stuck.any():
            break
        free &= ~stuck
    largest = float(np.max(np.abs(step), initial=0.0))
    return step * min(1.0, 0.3 / largest) if largest > 0.0 else step
