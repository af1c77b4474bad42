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
from wam_ros.contract.kinematics import Kinematics
from wam_ros.contract.model import Contract, JointGroup

STEP = 0.03
"""Metres between two points of the line that is followed from home."""
TURN = 0.03
"""Metres that one radian of departure from the wanted orientation of the hand counts for."""
STAY = 0.01
"""Metres that one radian of departure from the home pose counts for, per joint."""
MARGIN = 0.03
"""Distance (rad) that goals keep from joint limits."""
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
        self._tree = kinematics
        self._link = group.tip_link or ""
        self._urdf = [j.urdf[0] for j in group.joints]
        self._joints = [u for u, _, _ in self._urdf]
        self._scale = np.array([s for _, s, _ in self._urdf])
        self._offset = np.array([o for _, _, o in self._urdf])
        self._base = {u: s * j.home + o for j in contract.joints.values() for u, s, o in j.urdf}
        self.home = np.array([j.home for j in group.joints])
        self._low = np.array([j.limits.lower for j in group.joints]) + MARGIN
        self._high = np.array([j.limits.upper for j in group.joints]) - MARGIN
        pose = self.pose(self.home)
        self.rotation = pose[:3, :3] if rotation is None else rotation
        self.home_tip: FloatArray = pose[:3, 3]
        self._found: OrderedDict[bytes, Posture] = OrderedDict()

    def pose(self, q: FloatArray) -> FloatArray:
        """Pose ``(4, 4)`` of the tool centre at joint positions ``(D,)`` in contract units."""
        values = dict(zip(self._joints, (self._scale * q + self._offset).tolist(), strict=True))
        return self._tree.fk({**self._base, **values}, self._link)

    def jacobian(self, q: FloatArray) -> FloatArray:
        """Velocity ``(6, D)`` of the tool centre per unit speed of each joint."""
        values = dict(zip(self._joints, (self._scale * q + self._offset).tolist(), strict=True))
        jac = self._tree.jacobian({**self._base, **values}, self._link, self._joints)
        return np.asarray(jac * self._scale)

    def goal(self, point: FloatArray) -> Posture:
        """Joint positions with the tool centre at ``point`` ``(3,)`` in the root frame (m)."""
        key = np.asarray(point, dtype=np.float64).tobytes()
        if key in self._found:
            self._found.move_to_end(key)
            return self._found[key]
        posture = self._follow(np.asarray(point, dtype=np.float64))
        self._found[key] = posture
        if len(self._found) > _KEPT:
            self._found.popitem(last=False)
        return posture

    def _follow(self, point: FloatArray) -> Posture:
        line = point - self.home_tip
        count = max(1, int(np.ceil(np.linalg.norm(line) / STEP)))
        q = self.home.copy()
        for i in range(1, count):
            q = self._descend(q, self.home_tip + line * i / count, 2)
        q = self._descend(q, point, 60)
        return Posture(q, float(np.linalg.norm(self.pose(q)[:3, 3] - point)))

    def _descend(self, q: FloatArray, point: FloatArray, most: int) -> FloatArray:
        """Gauss-Newton steps with limits as active set."""
        for _ in range(most):
            pose = self.pose(q)
            jac = self.jacobian(q)
            turn = rotation_vector(self.rotation @ pose[:3, :3].T)
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
            if largest < 1e-6:
                break
        return q
