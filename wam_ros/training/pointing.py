"""Where each view shows the place at which a hand came to rest: there the image encoder is to look.

Nobody labels pictures for this. Joint states say where a hand ended, the contract says where the
cameras are and how wide they see; together they give the place in every picture on the way.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wam_ros.contract.kinematics import Kinematics, transform
from wam_ros.contract.model import Camera, Contract
from wam_ros.training.episodes import Array, Episode, settled
from wam_ros.wam.embodiments import embodiment
from wam_ros.wam.images import CROP
from wam_ros.wam.views import TILES

LEAST_TRAVEL = 0.03
"""A hand that comes no farther (m) in a whole instruction did not move."""


class Pointing:
    """Projects where hands ended into the views.

    Parameters
    ----------
    tree
        The robot's URDF.
    keys
        State keys in the order of `Episode.state`.
    cameras
        Names of the composite's views, in the model's order.
    """

    def __init__(
        self, contract: Contract, tree: Kinematics, keys: Sequence[str], cameras: Sequence[str]
    ) -> None:
        vectors = {k.key: k.joints for k in contract.state}
        self._names = [n for k in keys for n in vectors[k]]
        self._contract, self._tree = contract, tree
        known = {c.model_key.removeprefix("video."): c for c in contract.cameras}
        self._views = [(TILES[i], known[n]) for i, n in enumerate(cameras)]
        arms = [g for g in contract.groups if g.role == "arm" and g.tip_link]
        self._tips = [g.tip_link for g in arms if g.tip_link]
        self._sides = [g.name.split("_")[0] for g in arms]

    @classmethod
    def find(
        cls, contract: Contract, urdf: str, keys: Sequence[str], cameras: Sequence[str]
    ) -> Pointing | None:
        """For a robot whose views are known; None where they are not laid out in four tiles."""
        if embodiment(contract.embodiment).layout == "wrist_on_top" or len(cameras) < 2:
            return None
        return cls(contract, Kinematics(urdf), keys, cameras)

    def places(self, episode: Episode) -> Array:
        """Where each frame shows the end of its instruction.

        Returns
        -------
        float32 [frames, 4 tiles, 2]: x (right), y (down) in [-1, 1]; NaN in views that do not show
        it, for instructions that were cut short, and where it is not clear which hand is meant.
        """
        out = np.full((len(episode.frames), 4, 2), np.nan, np.float32)
        q = self._joints(episode.state)
        tips = np.stack([self._tree.fk_many(q, t)[:, :3, 3] for t in self._tips])
        rows = np.arange(len(episode.frames)) * episode.stride
        ends = np.full((len(episode.state), 3), np.nan)
        for start, stop in episode.segments():
            if not settled(episode.state[start:stop], tolerance=_STILL):
                continue
            path = tips[:, start:stop]
            hand = self._meant(episode.text[start], path)
            if hand is not None:
                ends[start:stop] = path[hand, -1]
        shown = rows[rows < len(ends)]
        frames = {name: values[shown] for name, values in q.items()}
        for tile, camera in self._views:
            out[: len(shown), tile] = self._project(camera, frames, ends[shown])
        return out

    def _meant(self, instruction: str, path: Array) -> int | None:
        """The hand that the sentence names by its side; else the only one that moved.

        ``path`` [hands, rows, 3]. The other hand may move as well: it goes home.
        """
        words = instruction.lower().split()
        named = [i for i, side in enumerate(self._sides) if side in words]
        if len(named) == 1:
            return named[0]
        travel = np.linalg.norm(path - path[:, -1:], axis=-1).max(axis=1)
        moved = np.flatnonzero(travel >= LEAST_TRAVEL)
        return int(moved[0]) if len(moved) == 1 else None

    def _joints(self, state: Array) -> dict[str, Array]:
        """URDF joint positions [T] of raw states [T, dim]."""
        joints, q = self._contract.joints, {}
        for name, values in zip(self._names, state.T, strict=True):
            for urdf, scale, offset in joints[name].urdf:
                q[urdf] = scale * values + offset
        return q

    def _project(self, camera: Camera, q: dict[str, Array], points: Array) -> Array:
        mount = transform(camera.xyz, camera.rpy)
        lens = self._tree.fk_many(q, camera.parent) @ mount
        seen = np.einsum("nij,ni->nj", lens[:, :3, :3], points - lens[:, :3, 3])
        half = np.tan(camera.fov_y / 2) * CROP
        with np.errstate(invalid="ignore", divide="ignore"):
            place = seen[:, :2] / seen[:, 2:] / [half * camera.width / camera.height, half]
            inside = (seen[:, 2] > 0.01) & (np.abs(place) < 1).all(axis=1)
        return np.where(inside[:, None], place, np.nan)


_STILL = 0.03  # rad
