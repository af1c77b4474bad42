"""One robot in front of one checkpoint: raw cameras and states in, raw actions out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from wam_ros.wam import actions, prompts, views
from wam_ros.wam.checkpoint.errors import CheckpointError
from wam_ros.wam.checkpoint.experiment import Experiment
from wam_ros.wam.checkpoint.metadata import EmbodimentMetadata
from wam_ros.wam.config import WamConfig
from wam_ros.wam.embodiments import embodiment

Array = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Adapter:
    """Everything a checkpoint knows about one embodiment, applied.

    Attributes
    ----------
    cameras, state_keys, action_keys
        Names and order the model was trained with.
    relative
        Action keys that come relative to the state.
    step_period
        Seconds between action rows; None where the checkpoint does not say.
    horizon
        Action rows of a chunk.
    """

    config: WamConfig
    metadata: EmbodimentMetadata
    cameras: tuple[str, ...]
    state_keys: tuple[str, ...]
    action_keys: tuple[str, ...]
    relative: tuple[str, ...]
    step_period: float | None
    modes: dict[str, dict[str, str]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        config: WamConfig,
        metadata: Mapping[str, EmbodimentMetadata],
        tag: str,
        experiment: Experiment | None = None,
    ) -> Adapter:
        """Join config, statistics and experiment for an embodiment.

        Raises
        ------
        CheckpointError
            If the checkpoint was not trained on this embodiment.
        """
        if tag not in metadata:
            raise CheckpointError(
                f"the checkpoint has no statistics for '{tag}'; it has {', '.join(metadata)}"
            )
        known, m = embodiment(tag), metadata[tag]
        setup = experiment.embodiments.get(tag) if experiment else None
        fps = (setup.fps if setup else None) or next((v.fps for v in m.video.values()), None)
        action = setup.action if setup else tuple(k for k, _ in known.action)
        relative = experiment.relative if experiment else known.relative
        return cls(
            config,
            m,
            (setup.video if setup else ()) or known.cameras,
            setup.state if setup else tuple(k for k, _ in known.state),
            action,
            tuple(k for k in relative if k in action),
            1.0 / fps if fps else None,
            setup.modes if setup else {},
        )

    @property
    def tag(self) -> str:
        """The embodiment."""
        return self.metadata.tag

    @property
    def horizon(self) -> int:
        """Action rows of a chunk."""
        return self.config.head.action_horizon

    @property
    def dims(self) -> dict[str, int]:
        """Dimensions of every action key, in order."""
        return {k: self.metadata.action_statistics[k].dim for k in self.action_keys}

    def composite(self, frames: Mapping[str, Tensor]) -> Tensor:
        """The model's picture, uint8 [T, H, W, 3], of camera name -> uint8 [T, h, w, 3].

        Raises
        ------
        ValueError
            If cameras are missing or their frames are not of the checkpoint's resolution.
        """
        head = self.config.head
        size, resolution = (head.video_height, head.video_width), self.metadata.resolution
        if head.resize_input:
            # The 5B model takes cameras of the size that the composite is resized to afterwards.
            resolution = (head.video_width, head.video_height)
            factor = 2 if len(self.cameras) > 1 else 1
            size = (factor * head.video_height, factor * head.video_width)
        return views.composite(frames, self.tag, size, resolution, self.cameras)

    def prompt(self, instruction: str | None) -> str:
        """The text for the tokenizer."""
        return prompts.prompt(instruction, self.tag)

    def state(self, state: Mapping[str, Array]) -> Array:
        """The model's state, float64 [1, T, max_state_dim], of key -> [T, dim] raw values."""
        vector = actions.state_vector(
            state,
            self.state_keys,
            self.metadata.state_statistics,
            self.config.dit.max_state_dim,
            self.modes.get("state"),
        )
        return vector[None]

    def actions(self, output: Array, state: Mapping[str, Array]) -> dict[str, Array]:
        """Absolute raw actions, key -> [B, rows, dim], of the model's output [B, rows, width].

        `state` is the raw state sent with this call.
        """
        raw = actions.split_actions(
            output, self.action_keys, self.metadata.action_statistics, self.modes.get("action")
        )
        return actions.to_absolute(raw, state, self.relative)

    def chunk(self, output: Array, state: Mapping[str, Array]) -> Array:
        """The same as one float32 [rows, degrees of freedom] array, keys side by side."""
        return actions.chunk(self.actions(output, state), self.action_keys)
