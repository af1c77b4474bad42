"""Distance of the arms from each other and from the body, and the workspace of the tool centres.

Every box of the URDF becomes one or more capsules that enclose it (no vendor publishes collision
capsules for these robots; our URDFs describe each link by boxes). Watched are pairs of links of
different arms, and pairs of an arm's link and a link that no arm moves. Fingers of two hands may
meet, as in a hand-over. The first two links of an arm against what carries it are left to the joint
limits. Pairs that are already closer than the clearance in the home pose cannot be judged this way
and are left out; `Space.ignored` lists them.
"""

from __future__ import annotations

from dataclasses import dataclass
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from wam_ros.contract.data import FloatArray
from wam_ros.contract.kinematics import MOVING, Kinematics, transform
from wam_ros.contract.model import Contract

_MOST_SLICES = 4
_NEAR = 0.02  # m beyond the clearance within which gaps are exact


@dataclass(frozen=True)
class Capsule:
    """A segment ``ends`` ``(2, 3)`` in the frame of ``link`` with ``radius`` around it, m."""

    link: str
    ends: FloatArray
    radius: float


def capsules(urdf_xml: str) -> list[Capsule]:
    """Enclose every box of every link; flat boxes are cut into slices of about square section."""
    found = []
    for link in ElementTree.fromstring(urdf_xml).findall("link"):
        shapes = link.findall("collision") or link.findall("visual")
        for shape in shapes:
            box = shape.find("geometry/box")
            if box is None:
                continue
            size = np.array([float(x) for x in box.get("size", "").split()])
            place = shape.find("origin")
            xyz, rpy = (
                [
                    float(x)
                    for x in (place.get(k, "0 0 0") if place is not None else "0 0 0").split()
                ]
                for k in ("xyz", "rpy")
            )
            found += _enclose(link.get("name", ""), size, transform(xyz, rpy))
    return found


def _enclose(link: str, size: FloatArray, pose: FloatArray) -> list[Capsule]:
    thin, middle, long = np.argsort(size)
    slices = min(max(1, round(size[middle] / size[thin])), _MOST_SLICES)
    width = size[middle] / slices
    radius = float(np.hypot(width, size[thin]) / 2.0)
    result = []
    for k in range(slices):
        ends = np.zeros((2, 3))
        ends[:, middle] = (k + 0.5) * width - size[middle] / 2.0
        ends[:, long] = np.array([-0.5, 0.5]) * size[long]
        result.append(Capsule(link, ends @ pose[:3, :3].T + pose[:3, 3], radius))
    return result


def _joined(tree: Kinematics, link: str, other: str) -> bool:
    """Whether at most two moving joints part ``link`` from ``other``, which carries it."""
    chain, stem = tree.chain(link), tree.chain(other)
    between = chain[len(stem) :]
    carries = [j.name for j in chain[: len(stem)]] == [j.name for j in stem]
    return carries and sum(j.kind in MOVING for j in between) <= 2


def segment_distance(a: FloatArray, b: FloatArray) -> FloatArray:
    """Distances ``(P,)`` between segments ``a`` and ``b``, each ``(P, 2, 3)``.

    Clamped closest points of two lines (Ericson, Real-Time Collision Detection, section 5.1.9).
    """
    d1, d2, r = a[:, 1] - a[:, 0], b[:, 1] - b[:, 0], a[:, 0] - b[:, 0]
    aa, ee, bb = (np.einsum("pi,pi->p", x, y) for x, y in ((d1, d1), (d2, d2), (d1, d2)))
    cc, ff = np.einsum("pi,pi->p", d1, r), np.einsum("pi,pi->p", d2, r)
    denominator = aa * ee - bb * bb
    parallel = denominator <= 1e-9 * aa * ee
    s = np.where(
        parallel, 0.0, np.clip((bb * ff - cc * ee) / np.where(parallel, 1, denominator), 0, 1)
    )
    t = (bb * s + ff) / ee
    s = np.where((t < 0) | (t > 1), np.clip((np.clip(t, 0, 1) * bb - cc) / aa, 0, 1), s)
    gap = r + s[:, None] * d1 - np.clip(t, 0, 1)[:, None] * d2
    return np.asarray(np.sqrt(np.einsum("pi,pi->p", gap, gap)))


class Space:
    """Self-distance and workspace of one robot.

    Parameters
    ----------
    contract
        Its `safety` gives clearance (m) and workspace (m, root frame).
    urdf_xml
        Plain URDF text of the robot.

    Attributes
    ----------
    pairs
        Watched pairs of links.
    ignored
        Pairs left out because they are too close in the home pose.
    """

    def __init__(self, contract: Contract, urdf_xml: str) -> None:
        self._safety = contract.safety
        self._names = contract.control_names
        tree = Kinematics(urdf_xml)
        self._chains = _Chains(tree, contract)
        arms = [g for g in contract.groups if g.role == "arm"]
        self._tips = [(g.name, self._chains.locate(g.tip_link or tree.root)) for g in arms]
        shapes = capsules(urdf_xml)
        owner = {
            link: next(
                (
                    g.name
                    for g in arms
                    if {j.name for j in tree.chain(link)}
                    & {u for j in g.joints for u, _, _ in j.urdf}
                ),
                "",
            )
            for link in tree.links
        }
        fingers = {
            tree.joints[u].child
            for g in contract.groups
            if g.role == "gripper"
            for j in g.joints
            for u, _, _ in j.urdf
        }
        pairs = [
            (i, j)
            for i, x in enumerate(shapes)
            for j, y in enumerate(shapes)
            if owner[x.link] and owner[x.link] != owner[y.link]
            and not {x.link, y.link} <= fingers
            and (not owner[y.link] or owner[x.link] < owner[y.link])
            and not _joined(tree, x.link, y.link)
        ]  # fmt: skip
        places = [self._chains.locate(s.link) for s in shapes]
        self._node = np.array([n for n, _ in places], dtype=int)
        self._ends = np.array(
            [s.ends @ p[:3, :3].T + p[:3, 3] for s, (_, p) in zip(shapes, places, strict=True)]
        ).reshape(-1, 2, 3)
        self._shapes, self._set = shapes, np.array(pairs, dtype=int).reshape(-1, 2)
        self._radii = np.array([shapes[i].radius + shapes[j].radius for i, j in pairs])
        half = np.linalg.norm(self._ends[:, 1] - self._ends[:, 0], axis=1) / 2.0
        self._spread = self._radii + half[self._set].sum(axis=1)
        self._flat = self._set @ [len(shapes), 1]
        self._reach = self._spread + self._safety.clearance + _NEAR
        home = np.array([contract.joints[n].home for n in self._names])
        close = self.distances(home[None])[0] < self._safety.clearance
        self.ignored = sorted({self._label(k) for k in np.flatnonzero(close)})
        # Whole pairs of links go, not single shapes: a link is watched or it is not.
        keep = np.array([self._label(k) not in self.ignored for k in range(len(pairs))], dtype=bool)
        self._set, self._radii = self._set[keep], self._radii[keep]
        self._spread, self._flat = self._spread[keep], self._flat[keep]
        self._reach = self._reach[keep]
        self.pairs = sorted({self._label(k) for k in range(len(self._set))})
        self._least = np.full(len(self._set), np.inf)

    def restart(self, position: FloatArray) -> None:
        """Take the pose at arming as it is: from there on only coming closer trips."""
        if len(self._set):
            gaps = self.distances(position[None])[0]
            self._least = np.where(gaps < self._safety.clearance, gaps - 1e-4, np.inf)

    def check(self, here: FloatArray, stop: FloatArray) -> str:
        """Why the arm may not be ``here`` ``(D,)`` or come to rest at ``stop``, or ''.

        Moving apart is always allowed, so that one can leave a pose that trips.
        """
        frames = self._chains.frames(np.stack([here, stop]))
        reason = self._box(frames)
        if reason or not len(self._set):
            return reason
        ends = self._placed(frames)
        near = np.flatnonzero((self._squares(ends) < self._reach**2).any(axis=0))
        gaps, clearance = self._exact(ends, near), self._safety.clearance
        least = self._least[near]
        # Too close already when it was armed: never closer than then, however slowly, until free.
        self._least = np.full(len(self._set), np.inf)
        self._least[near] = np.where(gaps[0] < clearance, least, np.inf)
        closest = np.minimum(gaps[0], gaps[1])
        bad = closest < np.minimum(clearance, least)
        if not bad.any():
            return ""
        k = int(np.argmin(np.where(bad, closest, np.inf)))
        a, b = self._label(near[k])
        return f"{a} comes {closest[k]:.3f} m close to {b}; {clearance} m must remain"

    def distances(self, positions: FloatArray) -> FloatArray:
        """Gap of every watched pair of shapes, ``(B, P)`` in m, for ``(B, D)`` joint positions.

        Exact where it matters, within 2 cm of the clearance; elsewhere a lower bound.
        """
        ends = self._placed(self._chains.frames(positions))
        gaps = np.sqrt(self._squares(ends)) - self._spread
        near = np.flatnonzero((gaps < self._safety.clearance + _NEAR).any(axis=0))
        gaps[:, near] = self._exact(ends, near)
        return np.asarray(gaps)

    def _placed(self, frames: FloatArray) -> FloatArray:
        """Ends of all shapes in the root frame, ``(B, S, 2, 3)``."""
        pose = frames[:, self._node]
        return np.asarray(self._ends @ pose[..., :3, :3].swapaxes(-1, -2) + pose[..., None, :3, 3])

    def _squares(self, ends: FloatArray) -> FloatArray:
        """Squared distances ``(B, P)`` between the middles of all pairs.

        Less the radii of the enclosing spheres they are a lower bound for the gap, which will do
        for most pairs.
        """
        middle = 0.5 * (ends[:, :, 0] + ends[:, :, 1])
        count = middle.shape[1]
        # |x|^2 + |y|^2 - 2 x y as one product.
        left, right = np.ones((2, len(ends), count, 5))
        left[..., :3], right[..., :3] = -2.0 * middle, middle
        left[..., 3] = right[..., 4] = np.einsum("bsi,bsi->bs", middle, middle)
        squares = (left @ right.swapaxes(1, 2)).reshape(len(ends), -1)
        return np.asarray(np.maximum(squares[:, self._flat], 0.0))

    def _exact(self, ends: FloatArray, pairs: NDArray[np.intp]) -> FloatArray:
        """Gaps ``(B, K)`` of the given pairs."""
        a, b = (ends[:, self._set[pairs, k]].reshape(-1, 2, 3) for k in range(2))
        return np.asarray(segment_distance(a, b).reshape(len(ends), -1) - self._radii[pairs])

    def _box(self, frames: FloatArray) -> str:
        box = self._safety.workspace
        if box is None:
            return ""
        lower, upper = np.array(box[0]), np.array(box[1])
        for name, (node, offset) in self._tips:
            tips = (frames[:, node] @ offset)[:, :3, 3]
            out = np.maximum(lower - tips, tips - upper).max(axis=1)
            if out.max() > 0.0:
                p = tips[int(np.argmax(out))]
                return (
                    f"tool of {name} at ({p[0]:.3f}, {p[1]:.3f}, {p[2]:.3f}) m leaves its workspace"
                )
        return ""

    def _label(self, k: int | np.intp) -> tuple[str, str]:
        i, j = self._set[k]
        return self._shapes[i].link, self._shapes[j].link


class _Chains:
    """Forward kinematics of many poses at once, fixed joints folded away."""

    def __init__(self, tree: Kinematics, contract: Contract) -> None:
        names = contract.control_names
        moving = [j for j in tree.joints.values() if j.kind in MOVING]
        self._tree = tree
        self._index = {j.name: k + 1 for k, j in enumerate(moving)}  # node 0 is the root
        count = len(moving) + 1
        self._parent = np.zeros(count, dtype=int)
        # The pose of a joint in its parent's node is linear in 1, sin q, 1 - cos q and q.
        basis = np.zeros((count, 4, 4, 4))
        basis[0, 0] = np.eye(4)
        depth = np.zeros(count, dtype=int)
        for joint in moving:
            k = self._index[joint.name]
            parent, offset = self.locate(joint.parent)
            self._parent[k], origin = parent, offset @ joint.origin
            depth[k] = depth[parent] + 1
            motion = np.zeros((4, 4, 4))
            motion[0] = np.eye(4)
            x, y, z = joint.axis
            if joint.kind == "prismatic":
                motion[3, :3, 3] = joint.axis
            else:
                motion[1, :3, :3] = [[0, -z, y], [z, 0, -x], [-y, x, 0]]
                motion[2] = motion[1] @ motion[1]
            basis[k] = origin @ motion
        self._basis = basis.reshape(count, 4, 16)
        self._levels = [np.flatnonzero(depth == d) for d in range(1, depth.max() + 1)]
        self._gain = np.zeros((count, len(names)))
        self._bias = np.zeros(count)
        for column, name in enumerate(names):
            for urdf, scale, bias in contract.joints[name].urdf:
                self._gain[self._index[urdf], column] = scale
                self._bias[self._index[urdf]] = bias

    def locate(self, link: str) -> tuple[int, FloatArray]:
        """Node that carries ``link`` and the fixed pose of the link in it."""
        pose = np.eye(4)
        for joint in reversed(self._tree.chain(link)):
            if joint.kind in MOVING:
                return self._index[joint.name], pose
            pose = joint.origin @ pose
        return 0, pose

    def frames(self, positions: FloatArray) -> FloatArray:
        """Poses ``(B, nodes, 4, 4)`` in the root link for ``(B, D)`` joint positions."""
        q = positions @ self._gain.T + self._bias
        parts = np.stack([np.ones_like(q), np.sin(q), 1.0 - np.cos(q), q], axis=-1)
        # Nodes first, so that a level is one row of memory.
        frames = (parts.swapaxes(0, 1) @ self._basis).reshape(*q.T.shape, 4, 4)
        for level in self._levels:
            frames[level] = frames[self._parent[level]] @ frames[level]
        return np.asarray(frames.swapaxes(0, 1))
