"""Where table, blocks and bowl stand for each robot, in its root frame (m)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wam_ros.contract.data import FloatArray

BLOCK_HALF = 0.02
BOWL_RADIUS = 0.051
"""Inner radius (m) of the bowl ..."""
BOWL_HEIGHT = 0.044
"""... and the height of its rim over the middle of its foot."""
COLOURS = {
    "red_block": (0.85, 0.12, 0.10, 1.0),
    "green_block": (0.10, 0.65, 0.20, 1.0),
    "blue_block": (0.10, 0.25, 0.85, 1.0),
}


@dataclass(frozen=True)
class Scene:
    """Table box and the rectangle blocks are placed in."""

    table_center: tuple[float, float, float]
    table_half: tuple[float, float, float]
    block_x: tuple[float, float]
    block_y: tuple[float, float]
    bowl: tuple[float, float]
    spacing: float = 0.11
    floor: float = 0.0
    push: tuple[float, float] = (15.0, 35.0)
    """Least and largest force (N) of a push that the arm's servos survive; see `Disturbance`."""

    @property
    def top(self) -> float:
        """Height of the table's surface."""
        return self.table_center[2] + self.table_half[2]


SCENES = {
    "agibot_g1": Scene(
        (0.80, 0.0, 0.89),
        (0.36, 0.60, 0.02),
        (0.58, 0.70),
        (-0.2, 0.2),
        (0.88, 0.0),
        push=(25.0, 60.0),
    ),
    "franka_droid": Scene(
        (0.45, 0.0, -0.02),
        (0.55, 0.60, 0.02),
        (0.40, 0.58),
        (-0.22, 0.22),
        (0.70, 0.0),
        floor=-0.75,
    ),
    "yam": Scene(
        (0.30, -0.305, -0.02),
        (0.50, 0.65, 0.02),
        (0.30, 0.44),
        (-0.50, -0.11),
        (0.58, -0.305),
        floor=-0.75,
        push=(4.0, 10.0),
    ),
}


def scene_for(robot: str) -> Scene:
    """Return the scene of ``robot``; LookupError names the robots that have one."""
    if robot not in SCENES:
        raise LookupError(f"no simulated scene for '{robot}'; there is one for {', '.join(SCENES)}")
    return SCENES[robot]


def place_blocks(scene: Scene, seed: int) -> dict[str, FloatArray]:
    """Draw block positions ``(3,)`` at least ``spacing`` apart; the same seed, the same places."""
    return draw_blocks(scene, np.random.default_rng(seed))


def draw_blocks(scene: Scene, rng: np.random.Generator) -> dict[str, FloatArray]:
    """Draw block positions as `place_blocks` does, from a generator."""
    low = np.array([scene.block_x[0], scene.block_y[0]])
    high = np.array([scene.block_x[1], scene.block_y[1]])
    while True:
        spots = rng.uniform(low, high, (len(COLOURS), 2))
        gaps = [np.linalg.norm(spots[i] - spots[j]) for i in range(len(spots)) for j in range(i)]
        if min(gaps) >= scene.spacing:
            break
    z = scene.top + BLOCK_HALF
    return {name: np.array([*spot, z]) for name, spot in zip(COLOURS, spots, strict=True)}
