"""Scenes that differ in what a policy must not depend on: places, poses, light, shades, cameras."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from wam_ros.contract.data import FloatArray
from wam_ros.contract.model import Contract
from wam_ros.sim.scene import Scene, draw_blocks, scene_for
from wam_ros.sim.seeds import stream
from wam_ros.sim.start import StartPoses


@dataclass(frozen=True)
class Randomisation:
    """How much scenes differ. Widths are halves of uniform ranges around the nominal value.

    Attributes
    ----------
    start : float
        Largest offset of each arm joint from home, rad.
    light : float
        Ambient and diffuse light are each multiplied by 1 - light .. 1 + light / 3; there is less
        room upwards, because the nominal light nearly saturates the table.
    light_turn : float
        Largest angle between the lamp's direction and its nominal one, rad.
    shade : float
        Largest change of table and floor colour, per channel, 0..1.
    camera_shift, camera_turn : float
        Largest offset of each camera along each axis, m, and about each axis, rad.
    """

    start: float = 0.25
    light: float = 0.3
    light_turn: float = 0.5
    shade: float = 0.08
    camera_shift: float = 0.004
    camera_turn: float = 0.0175

    @classmethod
    def none(cls) -> Randomisation:
        """Placements differ, nothing else does."""
        return cls(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Light:
    """Factors on ambient and diffuse light; the lamp's direction turned by ``turn`` (rad, x, y)."""

    ambient: float = 1.0
    diffuse: float = 1.0
    turn: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class Jitter:
    """A camera moved by ``shift`` (m) and turned by ``turn`` (rad), both in its own frame."""

    shift: tuple[float, float, float] = (0.0, 0.0, 0.0)
    turn: tuple[float, float, float] = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class SceneVariation:
    """One scene; `wam_ros.sim.plant.Plant.apply` puts a running plant into it.

    Attributes
    ----------
    blocks
        Centre ``(3,)`` of each block, m, in the root frame.
    start
        Arm joint positions to begin from, in contract units; joints left out begin at home.
    table, floor
        Change of colour ``(r, g, b)``.
    cameras
        By camera name; those left out stand where the contract says.
    """

    seed: int
    blocks: dict[str, FloatArray]
    start: dict[str, float] = field(default_factory=dict)
    light: Light = Light()
    table: tuple[float, float, float] = (0.0, 0.0, 0.0)
    floor: tuple[float, float, float] = (0.0, 0.0, 0.0)
    cameras: dict[str, Jitter] = field(default_factory=dict)


class Scenes:
    """Draws scenes for one robot; keep one, its kinematics are costly to build."""

    def __init__(self, contract: Contract, how: Randomisation | None = None) -> None:
        self.contract = contract
        self.how = how or Randomisation()
        self.scene: Scene = scene_for(contract.robot)
        self._poses = StartPoses(contract, self.scene)

    def draw(self, seed: int) -> SceneVariation:
        """Draw the scene of ``seed``: the same seed, the same scene, whatever was drawn before."""
        how = self.how
        blocks = draw_blocks(self.scene, stream(seed, "blocks"))
        rng = stream(seed, "look")
        light = Light(
            ambient=1.0 + float(rng.uniform(-how.light, how.light / 3.0)),
            diffuse=1.0 + float(rng.uniform(-how.light, how.light / 3.0)),
            turn=_three(rng, how.light_turn)[:2],
        )
        table, floor = _three(rng, how.shade), _three(rng, how.shade)
        cameras = {
            c.name: Jitter(_three(rng, how.camera_shift), _three(rng, how.camera_turn))
            for c in self.contract.cameras
        }
        start = self._poses.draw(stream(seed, "start"), how.start) if how.start else {}
        return SceneVariation(seed, blocks, start, light, table, floor, cameras)


def _three(rng: np.random.Generator, width: float) -> tuple[float, float, float]:
    x, y, z = rng.uniform(-width, width, 3).tolist()
    return x, y, z
