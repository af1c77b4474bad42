"""Poses an episode may begin from: near home, clear of limits, table, blocks and body."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from wam_ros.contract.data import FloatArray
from wam_ros.contract.kinematics import Kinematics
from wam_ros.contract.model import Contract
from wam_ros.execution.clearance import Capsule, Space, capsules
from wam_ros.resources import share
from wam_ros.sim.scene import BLOCK_HALF, Scene
from wam_ros.sim.urdf import expand

FREE = 0.02
"""Room (m) that remains between an arm and the tops of the blocks."""
MARGIN = 0.05
"""Distance (rad) from joint limits."""
_TRIES = 40


class StartPoses:
    """Draws start poses for the arms of one robot."""

    def __init__(self, contract: Contract, scene: Scene) -> None:
        path = Path(contract.urdf)
        xml = expand(path if path.is_absolute() else share() / path)
        self._contract = contract
        self._tree = Kinematics(xml)
        self._space = Space(contract, xml)
        self._lowest = scene.top + 2.0 * BLOCK_HALF + FREE
        self._arms = [j for g in contract.groups if g.role == "arm" for j in g.joints]
        moved = {u for j in self._arms for u, _, _ in j.urdf}
        self._hulls = [
            hull
            for hull in capsules(xml)
            if sum(j.name in moved for j in self._tree.chain(hull.link)) > 2  # its base cannot dip
        ]
        edge = np.array(scene.table_half[:2]) + FREE
        self._table = (np.array(scene.table_center[:2]) - edge, scene.table_center[:2] + edge)

    def draw(self, rng: np.random.Generator, width: float) -> dict[str, float]:
        """Draw arm joint positions (contract units) within ``width`` rad of home.

        A pose that is not clear is drawn again, each time from a range a tenth narrower.
        """
        home = {n: j.home for n, j in self._contract.joints.items()}
        for _ in range(_TRIES):
            pose = {
                j.name: float(
                    np.clip(
                        j.home + rng.uniform(-width, width),
                        min(j.home, j.limits.lower + MARGIN),
                        max(j.home, j.limits.upper - MARGIN),
                    )
                )
                for j in self._arms
            }
            if self.clear({**home, **pose}):
                return pose
            width *= 0.9
        return {j.name: j.home for j in self._arms}

    def clear(self, pose: dict[str, float]) -> bool:
        """Whether the arms are above the blocks' tops and clear of each other and the body."""
        joints = self._contract.joints
        frames = self._tree.all_links(
            {u: s * v + o for n, v in pose.items() for u, s, o in joints[n].urdf}
        )
        if any(self._low(hull, frames[hull.link]) for hull in self._hulls):
            return False
        values = np.array([pose[n] for n in self._contract.control_names])
        home = np.array([joints[n].home for n in self._contract.control_names])
        self._space.restart(home)
        return self._space.check(values, values) == ""

    def _low(self, hull: Capsule, frame: FloatArray) -> bool:
        """Whether an end of the capsule is over the table and too low."""
        ends = hull.ends @ frame[:3, :3].T + frame[:3, 3]
        low, high = self._table
        over = np.all((ends[:, :2] > low) & (ends[:, :2] < high), axis=1)
        return bool(np.any(over & (ends[:, 2] - hull.radius < self._lowest)))
