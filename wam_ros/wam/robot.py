"""A session in a robot's own terms: camera views and joint values in, absolute targets out.

`Session` speaks composites and normalised numbers; this wraps it with what a checkpoint says about
an embodiment: cameras and their layout, key order, statistics, relative keys, prompt.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from wam_ros.wam.actions import chunk, split_actions, state_vector, to_absolute
from wam_ros.wam.checkpoint.load import Loaded, load
from wam_ros.wam.embodiments import embodiment
from wam_ros.wam.head import PolicyHead, Tokens
from wam_ros.wam.imagined import frames
from wam_ros.wam.normalize import Statistics
from wam_ros.wam.prompts import NEGATIVE, prompt
from wam_ros.wam.savings import Savings
from wam_ros.wam.session import Chunk, Session
from wam_ros.wam.views import composite

Array = NDArray[Any]
State = Mapping[str, Array]
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class RobotCodec:
    """How one embodiment's observations and actions become the model's, and back.

    Attributes
    ----------
    size
        (height, width) of the composite.
    resolution
        (width, height) that every camera must have; None does not check.
    cameras, state_keys, action_keys
        In the model's order.
    relative
        Action keys that the model gives relative to the state of the observation.
    state_modes, action_modes
        Normalisation by key; q99 where not named.
    state_width
        Values of the padded state vector.
    """

    tag: str
    size: tuple[int, int]
    resolution: tuple[int, int] | None
    cameras: tuple[str, ...]
    state_keys: tuple[str, ...]
    action_keys: tuple[str, ...]
    relative: tuple[str, ...]
    state_statistics: Mapping[str, Statistics]
    action_statistics: Mapping[str, Statistics]
    state_modes: Mapping[str, str]
    action_modes: Mapping[str, str]
    state_width: int

    @classmethod
    def of(cls, loaded: Loaded, tag: str) -> RobotCodec:
        """What a checkpoint says about ``tag``; where it is silent, the release's defaults.

        Raises
        ------
        ValueError
            If the embodiment is unknown, or the checkpoint has no statistics for it.
        """
        known = embodiment(tag)
        if loaded.metadata is None or tag not in loaded.metadata:
            have = ", ".join(loaded.metadata or ()) or "none"
            raise ValueError(
                f"the checkpoint has no statistics for '{tag}' (experiment_cfg/metadata.json "
                f"lists: {have}); choose one of those or add them"
            )
        metadata, head = loaded.metadata[tag], loaded.config.head
        setup = loaded.experiment.embodiments.get(tag) if loaded.experiment else None
        return cls(
            tag,
            (head.video_height, head.video_width),
            metadata.resolution,
            (setup.video if setup else ()) or known.cameras,
            (setup.state if setup else ()) or tuple(k for k, _ in known.state),
            (setup.action if setup else ()) or tuple(k for k, _ in known.action),
            loaded.experiment.relative if loaded.experiment else known.relative,
            metadata.state_statistics,
            metadata.action_statistics,
            setup.modes.get("state", {}) if setup else {},
            setup.modes.get("action", {}) if setup else {},
            loaded.config.dit.max_state_dim,
        )

    def picture(self, views: Mapping[str, Array]) -> torch.Tensor:
        """Composite uint8 [H, W, 3] of camera name -> uint8 [h, w, 3] RGB.

        Raises
        ------
        ValueError
            For a missing or surplus camera, or a view of another type or size.
        """
        frames = {n: torch.from_numpy(np.ascontiguousarray(v))[None] for n, v in views.items()}
        return composite(frames, self.tag, self.size, self.resolution, self.cameras)[0]

    def state(self, state: State) -> torch.Tensor:
        """Normalised and padded [1, 1, width], of key -> [dim] in rad, m, or 0..1 for grippers.

        Raises
        ------
        ValueError
            For a missing key, a wrong number of values, or a value that is not finite.
        """
        for key in self.state_keys:
            if key in state and not np.all(np.isfinite(state[key])):
                raise ValueError(f"state '{key}' holds values that are not finite numbers")
        rows = {k: np.asarray(v, dtype=np.float64)[None] for k, v in state.items()}
        vector = state_vector(
            rows, self.state_keys, self.state_statistics, self.state_width, self.state_modes
        )
        return torch.from_numpy(vector)[None]

    def actions(self, normalised: torch.Tensor, state: State) -> Array:
        """Absolute targets [rows, dims], keys in order, of the model's [rows, width].

        ``state`` is the raw one of the observation that the chunk starts from.
        """
        raw = split_actions(
            normalised.float().cpu().numpy()[None],
            self.action_keys,
            self.action_statistics,
            self.action_modes,
        )
        rows = {k: np.asarray(v, dtype=np.float64)[None] for k, v in state.items()}
        return chunk(to_absolute(raw, rows, self.relative), self.action_keys)


@dataclass(frozen=True)
class RobotChunk:
    """A chunk in robot units.

    Attributes
    ----------
    actions
        Absolute targets, float32 [rows, dims]; row 0 is due at ``model.stamp``.
    columns
        Key of every column.
    anchor
        Raw state that the relative keys were added to.
    model
        The chunk as the model gave it: stamp, imagined latents, surprise, reset, seconds.
    """

    actions: Array
    columns: tuple[str, ...]
    anchor: dict[str, Array]
    model: Chunk


class RobotSession:
    """`Session` for one embodiment.

    Parameters
    ----------
    session
        Its ``tokenize`` must wrap instructions in the embodiment's prompt (`open` does).
    """

    def __init__(self, session: Session, codec: RobotCodec) -> None:
        self.session, self.codec = session, codec
        self._lock = threading.Lock()
        self._state: dict[str, Array] | None = None
        dims = [(k, codec.action_statistics[k].dim) for k in codec.action_keys]
        self.columns = tuple(key for key, dim in dims for _ in range(dim))

    @classmethod
    def open(
        cls,
        folder: Path | str,
        tag: str,
        tokenizer: Callable[[str], Tokens],
        *,
        device: torch.device | str = "cpu",
        precision: str = "bf16",
        base: Path | str | None = None,
        savings: Savings | None = None,
        **options: Any,
    ) -> RobotSession:
        """Load a checkpoint and start a session.

        Parameters
        ----------
        folder, base
            As for `checkpoint.load.load`.
        tag
            Embodiment, such as ``agibot``.
        tokenizer
            Text to ids and mask [1, text_len], for example a `text.Tokenizer`.
        precision
            ``fp32`` or ``bf16``.
        savings
            All exact ones by default.
        options
            Handed to `Session`; ``step_period`` comes from the checkpoint where it says a rate.

        Raises
        ------
        CheckpointError
            If the checkpoint is not sound.
        ValueError
            For a precision or embodiment that is not there.
        """
        if precision not in PRECISIONS:
            raise ValueError(
                f"precision '{precision}' is not one of {', '.join(PRECISIONS)}; "
                "quantise the transformer of an open session for less"
            )
        loaded = load(folder, base, device, PRECISIONS[precision])
        codec = RobotCodec.of(loaded, tag)
        prompt("", tag)  # raises for an embodiment without one
        n = loaded.networks
        savings = Savings.all() if savings is None else savings
        negative = tokenizer(NEGATIVE)
        head = PolicyHead(loaded.config, n.dit, n.text, n.image, n.vae, negative, savings)
        setup = loaded.experiment.embodiments.get(tag) if loaded.experiment else None
        if setup and setup.fps:
            options.setdefault("step_period", 1.0 / setup.fps)
        return cls(Session(head, lambda text: tokenizer(prompt(text, tag)), **options), codec)

    def instruct(self, text: str) -> None:
        """See `Session.instruct`."""
        self.session.instruct(text)

    def reset(self) -> None:
        """See `Session.reset`."""
        with self._lock:
            self._state = None
        self.session.reset()

    def observe(
        self,
        views: Mapping[str, Array],
        state: State,
        stamp: float,
        row: float | None = None,
        executing: bool = True,
    ) -> None:
        """Take in one observation: `RobotCodec` has views and state, `Session.observe` the rest.

        Raises
        ------
        ValueError
            For views or a state that do not fit; the observation is then dropped as a whole.
        """
        picture = self.codec.picture(views)
        self.codec.state(state)
        copy = {k: np.array(v, dtype=np.float64) for k, v in state.items()}
        with self._lock:
            newest = self.session.newest_stamp
            if newest is not None and stamp <= newest:
                return
            self._state = copy
            self.session.observe(picture, stamp, row, executing)

    def chunk(self, rows: float | None = None) -> RobotChunk:
        """The next chunk, anchored to the state of the newest observation; see `Session.chunk`."""
        with self._lock:
            anchor = self._state
            if anchor is None:
                raise RuntimeError("no observation yet: call observe() first")
            frozen = self.session.freeze(rows)
        found = self.session.finish(frozen, self.codec.state(anchor))
        return RobotChunk(self.codec.actions(found.actions, anchor), self.columns, anchor, found)

    def decode(self, found: RobotChunk) -> Array | None:
        """Imagined frames uint8 [4 K, H, W, 3]; None when no video was wanted. Takes VAE time."""
        decoded = [
            f.numpy() for _, f in frames(self.session.head, found.model.result, found.model.opening)
        ]
        return np.stack(decoded) if decoded else None

    def surprise(self, found: RobotChunk) -> float:
        """Of the block seen before this chunk; NaN where undefined. May take VAE time."""
        judgement = found.model.judgement
        return math.nan if judgement is None else judgement.value(self.session.head)
