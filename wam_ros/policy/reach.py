"""Where an arm's joints go for a point over the table: one answer, and near points, near answers.

Imitation learning needs a teacher whose goal is a continuous function of what can be seen. Inverse
kinematics that starts from the present pose is not: the same block is reached in another branch or
with another elbow, depending on where the arm came from. Here the goal depends on the point alone:
the home pose is followed along the straight line from the home tool centre to the point, by
regularised least squares whose minimum moves smoothly with the point.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np

from wam_ros.contract.data import FloatArray
from wam_ros.contract.ik import rotation_vector
from wam_ros.contract.kinematics import Kinematics, KinematicsError, axis_angle
from wam_ros.contract.model import Contract, JointGroup

STEP = 0.03
"""Metres between two points of the line that is followed from home."""
TURN = 0.03
"""Metres that one radian of departure from the wanted orientation of the hand counts for."""
STAY = 0.01
"""Metres that one radian of departure from the home pose counts for, per joint."""
MARGIN = 0.03
"""Distance (rad) that goals keep from joint limits."""
GRID = 5e-4
"""Grid (m) of the points that goals are found for."""
_POINT = 20.0
"""Weight of the point over the two soft wishes: errors below a millimetre remain."""
_KEPT = 4096


@dataclass(frozen=True)
class Posture:
    """Joint positions ``(D,)`` in contract units, and what is missing to the point (m)."""

    q: FloatArray
    error: float


class Reach:
    """Goal postures of one arm.

    Parameters
    ----------
    contract
        Gives home pose and limits.
    kinematics
        The robot's tree.
    group
        An arm group with a tool centre.
    rotation
        Wanted orientation of the hand ``(3, 3)`` in the root frame; the one at home if None. It
        is a wish: the point comes first.
    """

    def __init__(
        self,
        contract: Contract,
        kinematics: Kinematics,
        group: JointGroup,
        rotation: FloatArray | None = None,
    ) -> None:
        self.group = group
        self.names = [j.name for j in group.joints]
        self._scale = np.array([j.urdf[0][1] for j in group.joints])
        self._offset = np.array([j.urdf[0][2] for j in group.joints])
        self._chain = _chain(contract, kinematics, group)
        self.home = np.array([j.home for j in group.joints])
        self._low = np.array([j.limits.lower for j in group.joints]) + MARGIN
        self._high = np.array([j.limits.upper for j in group.joints]) - MARGIN
        pose = self.pose(self.home)
        self.rotation = pose[:3, :3] if rotation is None else rotation
        self._home_rotation = pose[:3, :3]
        self._turn = rotation_vector(self.rotation @ pose[:3, :3].T)
        self.home_tip: FloatArray = pose[:3, 3]
        self._found: OrderedDict[bytes, Posture] = OrderedDict()

    def pose(self, q: FloatArray) -> FloatArray:
        """Pose ``(4, 4)`` of the tool centre at joint positions ``(D,)`` in contract units."""
        pose = self._chain[0]
        for value, (axis, after) in zip(
            self._scale * q + self._offset, self._chain[1], strict=True
        ):
            turn = np.eye(4)
            turn[:3, :3] = axis_angle(axis, float(value))
            pose = pose @ turn @ after
        return pose

    def jacobian(self, q: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Pose ``(4, 4)`` as `pose` gives it, and velocity ``(6, D)`` per unit joint speed."""
        pose = self._chain[0]
        origins, axes = [], []
        for value, (axis, after) in zip(
            self._scale * q + self._offset, self._chain[1], strict=True
        ):
            origins.append(pose[:3, 3])
            axes.append(pose[:3, :3] @ axis)
            turn = np.eye(4)
            turn[:3, :3] = axis_angle(axis, float(value))
            pose = pose @ turn @ after
        spin = np.array(axes)
        arm = pose[:3, 3] - np.array(origins)
        return pose, np.vstack([np.cross(spin, arm).T, spin.T]) * self._scale

    def goal(self, point: FloatArray) -> Posture:
        """Joint positions with the tool centre at ``point`` ``(3,)`` in the root frame (m).

        Answers are kept by half millimetres: a block at rest trembles by less.
        """
        point = GRID * np.round(np.asarray(point, dtype=np.float64) / GRID)
        key = point.tobytes()
        if key in self._found:
            self._found.move_to_end(key)
            return self._found[key]
        posture = self._follow(point)
        self._found[key] = posture
        if len(self._found) > _KEPT:
            self._found.popitem(last=False)
        return posture

    def _follow(self, point: FloatArray) -> Posture:
        line = point - self.home_tip
        count = max(1, int(np.ceil(np.linalg.norm(line) / STEP)))
        q = self.home.copy()
        for i in range(1, count):
            part = _rotation(self._turn * i / count) @ self._home_rotation
            q = self._descend(q, self.home_tip + line * i / count, part, 2)
        q = self._descend(q, point, self.rotation, 60)
        return Posture(q, float(np.linalg.norm(self.pose(q)[:3, 3] - point)))

    def _descend(
        self, q: FloatArray, point: FloatArray, rotation: FloatArray, most: int
    ) -> FloatArray:
        """Gauss-Newton steps with limits as active set."""
        for _ in range(most):
            pose, jac = self.jacobian(q)
            turn = rotation_vector(rotation @ pose[:3, :3].T)
            wish = np.concatenate(
                [_POINT * (point - pose[:3, 3]), TURN * turn, STAY * (self.home - q)]
            )
            rows = np.vstack([_POINT * jac[:3], TURN * jac[3:], STAY * np.eye(len(q))])
            free = np.ones(len(q), dtype=bool)
            step = np.zeros(len(q))
            for _ in range(len(q)):
                step[:] = 0.0
                step[free] = np.linalg.lstsq(rows[:, free], wish, rcond=None)[0]
                stuck = free & (((q <= self._low) & (step < 0)) | ((q >= self._high) & (step > 0)))
                if not stuck.any():
                    break
                free &= ~stuck
            largest = float(np.max(np.abs(step)))
            q = np.clip(q + step * min(1.0, 0.2 / max(largest, 1e-12)), self._low, self._high)
            if largest < 1e-5:
                break
        return q


def _rotation(vector: FloatArray) -> FloatArray:
    """Rotation ``(3, 3)`` of axis times angle ``(3,)``."""
    angle = float(np.linalg.norm(vector))
    return axis_angle(vector / angle, angle) if angle > 0.0 else np.eye(3)


def _chain(
    contract: Contract, tree: Kinematics, group: JointGroup
) -> tuple[FloatArray, list[tuple[FloatArray, FloatArray]]]:
    """The arm as a product: a fixed pose, then per joint its axis and the fixed pose after it.

    Joints of other groups on the way (a waist) stand at home.
    """
    moved = [j.urdf[0][0] for j in group.joints]
    home = {u: s * j.home + o for j in contract.joints.values() for u, s, o in j.urdf}
    start, parts = np.eye(4), list[tuple[FloatArray, FloatArray]]()
    for joint in tree.chain(group.tip_link or ""):
        turned = joint.name in moved
        if turned and (joint.kind == "prismatic" or joint.name != moved[len(parts)]):
            raise KinematicsError(
                f"{group.name}: joint '{joint.name}' slides or is out of order; the teacher needs "
                f"hinges in the order of the chain"
            )
        step = joint.origin if turned else tree.step(joint, home)
        if parts:
            parts[-1] = (parts[-1][0], parts[-1][1] @ step)
        else:
            start = start @ step
        if turned:
            parts.append((joint.axis, np.eye(4)))
    if len(parts) != len(moved):
        raise KinematicsError(f"{group.name}: not all of its joints carry '{group.tip_link}'")
    return start, parts


def wanted_rotation(robot: str) -> FloatArray | None:
    """Orientation of the hands ``(3, 3)`` wanted at the blocks; None for the one at home.

    YAM's hand is level at home and would lie on the table at the blocks; it is pitched 60 degrees
    down.
    """
    if robot != "yam":
        return None
    x, z = np.array([0.0, -1.0, 0.0]), np.array([0.5, 0.0, -np.sqrt(0.75)])
    return np.stack([x, np.cross(z, x), z], axis=1)
