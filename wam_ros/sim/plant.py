"""The MuJoCo plant: our own URDF with position servos, a table with blocks, and cameras."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from wam_ros.contract.data import FloatArray
from wam_ros.contract.model import Camera, Contract
from wam_ros.resources import share
from wam_ros.sim.look import Look
from wam_ros.sim.scene import BLOCK_HALF, COLOURS, place_blocks, scene_for
from wam_ros.sim.urdf import expand
from wam_ros.sim.variation import SceneVariation

# Position servo gain, damping and reflected inertia per role; stiff enough that a 2 rad/s motion
# lags by a few hundredths of a radian, as an industrial arm does.
_SERVO = {
    "arm": (400.0, 40.0, 0.1),
    "gripper": (200.0, 20.0, 0.05),
    "head": (200.0, 20.0, 0.05),
    "waist": (20000.0, 2000.0, 1.0),
}
TIMESTEP = 0.002


class Plant:
    """One simulated robot.

    Joint values are in contract units throughout; lengths in metres in the robot's root frame,
    which is also the world frame.

    Parameters
    ----------
    contract
        The robot; its ``urdf`` path is taken relative to the package's share folder.
    seed
        Fixes where the blocks lie.
    gl
        ``osmesa`` or ``egl``; must be chosen before MuJoCo is first imported.
    """

    def __init__(self, contract: Contract, seed: int = 0, gl: str = "osmesa") -> None:
        os.environ.setdefault("MUJOCO_GL", gl)
        import mujoco

        self._mj: Any = mujoco
        self.contract = contract
        self.scene = scene_for(contract.robot)
        self.model = self._compile()
        self.data = mujoco.MjData(self.model)
        self.lock = threading.Lock()
        self._look = Look(self.model)
        self._address: dict[str, list[tuple[int, int, float, float]]] = {}
        for joint in contract.joints.values():
            self._address[joint.name] = [
                (self.model.joint(u).qposadr[0], self.model.actuator(u).id, s, o)
                for u, s, o in joint.urdf
            ]
        self._index_positions()
        m = self.model
        self._ends = m.jnt_range.copy(), m.jnt_limited.copy(), m.jnt_solref.copy()
        self.reset(seed)

    # ---- building ------------------------------------------------------------------------------

    def _compile(self) -> Any:
        mj = self._mj
        path = Path(self.contract.urdf)
        spec = mj.MjSpec.from_string(expand(path if path.is_absolute() else share() / path))
        spec.option.timestep = TIMESTEP
        spec.option.integrator = mj.mjtIntegrator.mjINT_IMPLICITFAST
        quality = spec.visual.quality
        # The shadow map and multisampling cost ten times the rest of a frame without a GPU.
        quality.shadowsize, quality.offsamples = 0, 0
        spec.visual.headlight.ambient = [0.45, 0.45, 0.45]
        spec.visual.headlight.diffuse = [0.5, 0.5, 0.5]
        spec.visual.map.znear = 0.01
        for body in spec.bodies:
            body.gravcomp = 1.0
        fingers = {
            u for g in self.contract.groups if g.role == "gripper" for u, _, _ in g.joints[0].urdf
        }
        for geom in spec.geoms:
            moves = {j.name for j in geom.parent.joints}
            solid = bool(moves & fingers)
            geom.contype, geom.conaffinity = (2, 1) if solid else (0, 0)
        self._add_servos(spec)
        self._add_scene(spec)
        for camera in self.contract.cameras:
            self._add_camera(spec, camera)
        return spec.compile()

    def _add_servos(self, spec: Any) -> None:
        mj = self._mj
        joints = {j.name: j for j in spec.joints}
        for group in self.contract.groups:
            kp, kv, armature = _SERVO.get(group.role, (0.0, 0.0, 0.0))
            for name in (u for j in group.joints for u, _, _ in j.urdf):
                joints[name].armature = armature
                actuator = spec.add_actuator(name=name, target=name)
                actuator.trntype = mj.mjtTrn.mjTRN_JOINT
                actuator.set_to_position(kp=kp, kv=kv)

    def _add_scene(self, spec: Any) -> None:
        mj, world, s = self._mj, spec.worldbody, self.scene
        box = mj.mjtGeom.mjGEOM_BOX
        floor = {"contype": 0, "conaffinity": 0}
        world.add_geom(
            name="floor",
            type=mj.mjtGeom.mjGEOM_PLANE,
            size=[4, 4, 0.1],
            pos=[0, 0, s.floor],
            rgba=[0.62, 0.64, 0.66, 1],
            **floor,
        )
        world.add_geom(
            name="table",
            type=box,
            size=list(s.table_half),
            pos=list(s.table_center),
            rgba=[0.80, 0.72, 0.60, 1],
            contype=1,
            conaffinity=1,
        )
        spec.add_texture(
            name="sky",
            type=mj.mjtTexture.mjTEXTURE_SKYBOX,
            builtin=mj.mjtBuiltin.mjBUILTIN_GRADIENT,
            rgb1=[0.75, 0.80, 0.86],
            rgb2=[0.55, 0.58, 0.62],
            width=64,
            height=384,
        )
        world.add_light(name="lamp", pos=[0.3, 0.8, 3.0], dir=[0, -0.3, -1], castshadow=False)
        for name, rgba in COLOURS.items():
            body = world.add_body(name=name, pos=[0, 0, s.top + BLOCK_HALF])
            body.add_freejoint(name=name)
            body.add_geom(
                type=box,
                size=[BLOCK_HALF] * 3,
                rgba=list(rgba),
                mass=0.1,
                friction=[1.0, 0.02, 0.001],
                contype=1,
                conaffinity=3,
            )
        self._add_bowl(world, box)

    def _add_bowl(self, world: Any, box: Any) -> None:
        x, y = self.scene.bowl
        bowl = world.add_body(name="bowl", pos=[x, y, self.scene.top])
        grey = [0.93, 0.93, 0.95, 1]
        bowl.add_geom(type=box, size=[0.05, 0.05, 0.004], pos=[0, 0, 0.004], rgba=grey)
        for angle in np.arange(8) * np.pi / 4:
            c, z = np.cos(angle), np.sin(angle)
            bowl.add_geom(
                type=box,
                size=[0.004, 0.024, 0.02],
                pos=[0.055 * c, 0.055 * z, 0.024],
                euler=[0, 0, angle],
                rgba=grey,
            )

    def _add_camera(self, spec: Any, camera: Camera) -> None:
        from scipy.spatial.transform import Rotation

        # The contract gives the ROS optical frame (z forward, y down); MuJoCo looks along -z, y up.
        turn = Rotation.from_euler("xyz", camera.rpy) * Rotation.from_euler("x", np.pi)
        quat = turn.as_quat()[[3, 0, 1, 2]]
        spec.body(camera.parent).add_camera(
            name=camera.name,
            pos=list(camera.xyz),
            quat=quat.tolist(),
            fovy=float(np.degrees(camera.fov_y)),
        )

    def _index_positions(self) -> None:
        """Lay out where `positions` reads, so that it is one look and not one per joint."""
        known = {name: parts for name, parts in self._address.items() if parts}
        every = [part for parts in known.values() for part in parts]
        self._measured = tuple(known)
        self._qpos = np.array([q for q, _, _, _ in every])
        self._scale = np.array([s for _, _, s, _ in every])
        self._offset = np.array([o for _, _, _, o in every])
        self._count = np.array([len(parts) for parts in known.values()])
        self._first = np.concatenate([[0], np.cumsum(self._count)[:-1]])

    # ---- running -------------------------------------------------------------------------------

    def reset(self, seed: int) -> None:
        """Put the robot into its home pose and the blocks where ``seed`` says; nominal looks."""
        self.apply(SceneVariation(seed, place_blocks(self.scene, seed)))

    def apply(self, variation: SceneVariation) -> None:
        """Begin anew in a scene; time starts at 0. KeyError for an unknown joint or block."""
        with self.lock:
            self._mj.mj_resetData(self.model, self.data)
            self._look.set(variation)
            for joint in self.contract.joints.values():
                value = variation.start.get(joint.name, joint.home)
                for qpos, actuator, scale, offset in self._address[joint.name]:
                    self.data.qpos[qpos] = scale * value + offset
                    self.data.ctrl[actuator] = scale * value + offset
            for name, position in variation.blocks.items():
                start = self.model.joint(name).qposadr[0]
                self.data.qpos[start : start + 3] = position
            self._mj.mj_forward(self.model, self.data)

    def move_object(self, name: str, position: FloatArray) -> None:
        """Put a block at ``position`` ``(3,)``, upright and at rest."""
        with self.lock:
            joint = self.model.joint(name)
            q, v = joint.qposadr[0], joint.dofadr[0]
            self.data.qpos[q : q + 7] = [*position, 1.0, 0.0, 0.0, 0.0]
            self.data.qvel[v : v + 6] = 0.0

    def push(self, group: str, force: FloatArray) -> None:
        """Pull at an arm's tool centre with ``force`` ``(3,)`` (N) until the next call."""
        link = self.contract.group(group).tip_link
        with self.lock:
            self.data.xfrc_applied[self.model.body(link).id, :3] = force

    def dim(self, share: float) -> None:
        """Turn the light down to ``share`` of what it is, until the next reset or scene."""
        with self.lock:
            self._look.dim(share)

    def jam(self, joint: str = "") -> None:
        """Hold a contract joint fast where it is now, the others free again; '' frees all.

        Raises
        ------
        KeyError
            The model has no such joint.
        """
        parts = self._address[joint] if joint else []
        if joint and not parts:
            raise KeyError(joint)
        with self.lock:
            model = self.model
            model.jnt_range[:], model.jnt_limited[:], model.jnt_solref[:] = self._ends
            for qpos, actuator, _, _ in parts:
                held = model.actuator_trnid[actuator, 0]
                model.jnt_range[held] = self.data.qpos[qpos] + np.array([-1e-3, 1e-3])
                model.jnt_limited[held] = 1
                model.jnt_solref[held] = (2 * TIMESTEP, 1.0)  # as stiff as MuJoCo allows

    def set_targets(self, targets: dict[str, float]) -> None:
        """Set servo targets by contract joint name, in contract units; KeyError for a stranger."""
        with self.lock:
            control = self.data.ctrl  # every look at an attribute makes a new array
            for name, value in targets.items():
                for _, actuator, scale, offset in self._address[name]:
                    control[actuator] = scale * value + offset

    def step(self, count: int = 1) -> None:
        """Advance by ``count`` steps of 2 ms."""
        with self.lock:
            self._mj.mj_step(self.model, self.data, count)

    @property
    def time(self) -> float:
        """Simulated seconds since the last reset."""
        return float(self.data.time)

    def positions(self) -> dict[str, float]:
        """Measured joint positions in contract units, for joints the model has."""
        with self.lock:
            values = (self.data.qpos[self._qpos] - self._offset) / self._scale
        means = np.add.reduceat(values, self._first) / self._count
        return dict(zip(self._measured, means.tolist(), strict=True))

    def qpos_at(self, positions: Mapping[str, float]) -> FloatArray:
        """MuJoCo's ``qpos`` as it is now, but with joints at ``positions`` (contract units)."""
        with self.lock:
            qpos = np.array(self.data.qpos)
        for name, value in positions.items():
            for place, _, scale, offset in self._address[name]:
                qpos[place] = scale * value + offset
        return qpos

    def objects(self) -> dict[str, FloatArray]:
        """Centre of each block and of the bowl, ``(3,)``."""
        with self.lock:
            return {n: self.data.body(n).xpos.copy() for n in (*COLOURS, "bowl")}

    def tip(self, group: str) -> FloatArray:
        """Tool centre of an arm group, ``(3,)``."""
        link = self.contract.group(group).tip_link
        with self.lock:
            return np.array(self.data.body(link).xpos)


class Views:
    """Renders the contract's cameras; make and use it in one thread (EGL insists)."""

    def __init__(self, plant: Plant, width: int = 320) -> None:
        self._plant = plant
        self._mj = plant._mj
        self._data = self._mj.MjData(plant.model)
        self._renderers: dict[tuple[int, int], Any] = {}
        self._size = {
            c.name: (max(2, round(width * c.height / c.width / 2) * 2), width)
            for c in plant.contract.cameras
        }

    def render(self, camera: str, qpos: FloatArray | None = None) -> np.ndarray:
        """Picture of ``camera``, uint8 RGB ``(H, W, 3)``, now or with MuJoCo's ``qpos``."""
        size = self._size[camera]
        if size not in self._renderers:
            self._renderers[size] = self._mj.Renderer(self._plant.model, *size)
        renderer = self._renderers[size]
        with self._plant.lock:
            self._data.qpos[:] = self._plant.data.qpos if qpos is None else qpos
        self._mj.mj_forward(self._plant.model, self._data)
        renderer.update_scene(self._data, camera)
        return np.asarray(renderer.render())

    def close(self) -> None:
        """Free the GL contexts; left to the interpreter's end they print errors."""
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()
