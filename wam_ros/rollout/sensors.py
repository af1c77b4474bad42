"""Joint states and pictures on the virtual clock, and the observations perception makes of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wam_ros.contract.data import Observation
from wam_ros.contract.model import Contract
from wam_ros.perception.assemble import assemble, picture, source_specs
from wam_ros.perception.sync import Aligned, Aligner
from wam_ros.sim.plant import Plant, Views


class Picture:
    """A picture that is drawn when somebody looks at it; has the fields of sensor_msgs/Image.

    What it needs for that, the joint positions of the moment, is kept: a frame that nobody uses
    costs 2 us instead of a millisecond.
    """

    encoding = "rgb8"
    is_bigendian = 0

    def __init__(self, cameras: Cameras, camera: str, qpos: Any) -> None:
        self._cameras, self._camera, self._qpos = cameras, camera, qpos
        self._episode = cameras.episode
        self._rgb: NDArray[np.uint8] | None = None

    @property
    def rgb(self) -> NDArray[np.uint8]:
        """The picture, uint8 ``(H, W, 3)``.

        Raises
        ------
        RuntimeError
            It was not looked at before its episode ended: the scene is another one now.
        """
        if self._rgb is None:
            if self._episode != self._cameras.episode:
                raise RuntimeError(
                    f"a picture of '{self._camera}' was first read after its episode had ended; "
                    "read views while the rollout runs"
                )
            self._rgb = self._cameras.draw(self._camera, self._qpos)
        return self._rgb

    @property
    def height(self) -> int:
        """Rows."""
        return int(self.rgb.shape[0])

    @property
    def width(self) -> int:
        """Columns."""
        return int(self.rgb.shape[1])

    @property
    def step(self) -> int:
        """Bytes per row."""
        return 3 * self.width

    @property
    def data(self) -> memoryview:
        """The pixels, row by row."""
        return np.ascontiguousarray(self.rgb).data.cast("B")


class Cameras:
    """Renders a plant's cameras; ``episode`` counts resets of the scene."""

    def __init__(self, plant: Plant, width: int) -> None:
        self._plant, self._views = plant, Views(plant, width)
        self.episode = 0
        self.drawn = 0

    def shoot(self) -> dict[str, Picture]:
        """A picture of every camera as things are now."""
        qpos = self._plant.data.qpos.copy()
        return {c.name: Picture(self, c.name, qpos) for c in self._plant.contract.cameras}

    def draw(self, camera: str, qpos: Any) -> NDArray[np.uint8]:
        """Draw one picture with the joints at ``qpos``."""
        self.drawn += 1
        return np.asarray(self._views.render(camera, qpos), dtype=np.uint8)

    def close(self) -> None:
        """Free the GL contexts."""
        self._views.close()


class LazyViews(Mapping[str, NDArray[np.uint8]]):
    """Views at the model's size, drawn and resized at the first look."""

    def __init__(self, contract: Contract, aligned: Aligned) -> None:
        self._contract = contract
        self._pictures = {c.name: aligned.picked[c.name].value for c in contract.cameras}
        self._done: dict[str, NDArray[np.uint8]] = {}

    def __getitem__(self, name: str) -> NDArray[np.uint8]:
        if name not in self._done:
            self._done[name] = picture(self._contract, self._pictures[name])
        return self._done[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._pictures)

    def __len__(self) -> int:
        return len(self._pictures)


class Perception:
    """The perception node's work without the node."""

    def __init__(self, contract: Contract) -> None:
        self._contract = contract
        self._aligner = Aligner(source_specs(contract), contract.max_skew)
        self._sequence = 0

    def push(self, name: str, stamp: float, value: Any) -> None:
        """Take a sample of a source."""
        self._aligner.push(name, stamp, value)

    def look(self, now: float) -> Observation | None:
        """The observation of this tick, or None when nothing new can be put together."""
        aligned = self._aligner.align(now)
        if aligned is None or aligned.reason:
            return None
        views = LazyViews(self._contract, aligned)
        observation = assemble(self._contract, aligned, self._sequence, views)
        self._sequence += 1
        return observation
