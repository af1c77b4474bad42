"""Light, shades and cameras of a compiled MuJoCo model, changed in place."""

from __future__ import annotations

from typing import Any

import numpy as np

from wam_ros.contract.data import FloatArray
from wam_ros.sim.variation import SceneVariation


class Look:
    """Remembers how a model was compiled; every setting is relative to that, never to the last."""

    def __init__(self, model: Any) -> None:
        self._model = model
        head = model.vis.headlight
        self._head = (np.array(head.ambient), np.array(head.diffuse))
        self._lamp = model.light("lamp").id
        self._lights = (model.light_diffuse.copy(), model.light_dir.copy())
        self._shades = model.geom_rgba.copy()
        self._cameras = (model.cam_pos.copy(), model.cam_quat.copy())

    def set(self, variation: SceneVariation) -> None:
        """Change the model to the looks of ``variation``; KeyError for an unknown camera."""
        model, light = self._model, variation.light
        model.vis.headlight.ambient[:] = self._head[0] * light.ambient
        model.vis.headlight.diffuse[:] = self._head[1] * light.diffuse
        model.light_diffuse[:] = self._lights[0] * light.diffuse
        model.light_dir[:] = self._lights[1]
        if any(light.turn):
            model.light_dir[self._lamp] = _turn((*light.turn, 0.0)) @ self._lights[1][self._lamp]
        model.geom_rgba[:] = self._shades
        for name, change in (("table", variation.table), ("floor", variation.floor)):
            geom = model.geom(name).id
            model.geom_rgba[geom, :3] = np.clip(self._shades[geom, :3] + change, 0.0, 1.0)
        model.cam_pos[:], model.cam_quat[:] = self._cameras
        for name, jitter in variation.cameras.items():
            camera = model.camera(name).id
            pose = _matrix(self._cameras[1][camera])
            model.cam_pos[camera] = self._cameras[0][camera] + pose @ np.array(jitter.shift)
            model.cam_quat[camera] = _quaternion(pose @ _turn(jitter.turn))

    def dim(self, share: float) -> None:
        """Leave ``share`` of the present light, until `set`."""
        head = self._model.vis.headlight
        for part in (head.ambient, head.diffuse, self._model.light_diffuse):
            part[:] *= share


def _turn(vector: tuple[float, float, float]) -> FloatArray:
    from scipy.spatial.transform import Rotation

    return np.asarray(Rotation.from_rotvec(vector).as_matrix())


def _matrix(quaternion: FloatArray) -> FloatArray:
    from scipy.spatial.transform import Rotation

    return np.asarray(Rotation.from_quat(quaternion[[1, 2, 3, 0]]).as_matrix())


def _quaternion(matrix: FloatArray) -> FloatArray:
    from scipy.spatial.transform import Rotation

    return np.asarray(Rotation.from_matrix(matrix).as_quat()[[3, 0, 1, 2]])
