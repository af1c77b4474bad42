"""What can be listened to while a rollout runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wam_ros.contract.data import ActionChunk, FloatArray, Observation
from wam_ros.contract.model import Camera, StateSource
from wam_ros.execution.outputs import Channel

if TYPE_CHECKING:
    from wam_ros.rollout.episode import Episode
    from wam_ros.rollout.loop import Rollout
    from wam_ros.rollout.sensors import Picture


class Observer:
    """Base class; override what you need. Times are in virtual seconds.

    Hooks run between two ticks and may take as long as they like: the world waits. What they
    are given must not be changed.
    """

    def on_start(self, rollout: Rollout, instruction: str, t: float) -> None:
        """An episode begins: ``instruction`` is about to be said, for the first time."""

    def on_instruction(self, t: float, instruction: str) -> None:
        """An instruction was said, the first one included; empty means hold."""

    def on_joints(self, t: float, source: StateSource, raw: list[float]) -> None:
        """A joint source was read; ``raw`` in the driver's unit, in ``source.joints`` order."""

    def on_picture(self, t: float, camera: Camera, picture: Picture) -> None:
        """A picture that shows the moment ``t`` arrived; drawn when its ``data`` is read."""

    def on_observation(self, t: float, observation: Observation) -> None:
        """Perception put an observation together; its views are drawn when they are read."""

    def on_chunk(self, t: float, chunk: ActionChunk, refused: str) -> None:
        """A chunk reached the executor at ``t``; ``refused`` is empty, or why it was not taken."""

    def on_imagined(self, t: float, frames: Any) -> None:
        """Frames of `policy.base.Afterthought` for the chunk just delivered.

        The method is called, outside the charged latency, only when an observer overrides this.
        """

    def on_command(self, t: float, channel: Channel, values: FloatArray) -> None:
        """A command left on an output; ``values`` in the driver's unit."""

    def on_tick(self, t: float, rollout: Rollout) -> None:
        """Every period of the trace (10 ms), after everything else that happens then."""

    def on_end(self, episode: Episode) -> None:
        """The episode is over."""
