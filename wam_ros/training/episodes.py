"""What the trainer learns from: episodes as arrays, pictures composed at the model's size."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wam_ros.wam.actions import state_vector
from wam_ros.wam.checkpoint.metadata import EmbodimentMetadata

Array = NDArray[Any]


@dataclass(frozen=True)
class Episode:
    """One episode on the action clock.

    Attributes
    ----------
    frames
        Composites uint8 [N, H, W, 3], one every ``stride`` rows, the first at row 0.
    state, action
        Raw values [T, dim], keys side by side in the model's order; actions absolute.
    text
        Instruction of every row, [T].
    stride
        Rows between frames.
    excluded
        Rows around which no window may lie: repeated over a gap, or not commanded by who should.
    """

    frames: Array
    state: Array
    action: Array
    text: tuple[str, ...]
    stride: int = 3
    excluded: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        rows = len(self.state)
        if len(self.action) != rows or len(self.text) != rows:
            raise ValueError(
                f"episode: {rows} states, {len(self.action)} actions, {len(self.text)} instructions"
            )
        needed = -(-rows // self.stride)
        if len(self.frames) < needed:
            raise ValueError(
                f"episode: {len(self.frames)} frames for {rows} rows, expected {needed}"
            )

    def segments(self) -> list[tuple[int, int]]:
        """First row and row behind the last of every run of rows with one instruction."""
        changes = [t for t in range(1, len(self.text)) if self.text[t] != self.text[t - 1]]
        return list(itertools.pairwise([0, *changes, len(self.text)]))


def settled(state: Array, rows: int = 6, tolerance: float = 0.1) -> bool:
    """Whether the last ``rows`` of normalised states [T, width] stand still.

    An instruction that was cut short ends in a state that says nothing about it.
    """
    return len(state) >= rows and float(np.ptp(state[-rows:], axis=0).max()) < tolerance


@dataclass(frozen=True)
class Numbers:
    """How raw states and actions of one embodiment become the model's."""

    metadata: EmbodimentMetadata
    state_keys: tuple[str, ...]
    action_keys: tuple[str, ...]
    relative: tuple[str, ...]
    state_width: int
    action_width: int

    def state(self, raw: Array) -> Array:
        """Normalised and padded float32 [T, width] of raw [T, dim]."""
        statistics = self.metadata.state_statistics
        parts = _split(raw, self.state_keys, [statistics[k].dim for k in self.state_keys])
        return state_vector(parts, self.state_keys, statistics, self.state_width).astype(np.float32)

    def actions(self, raw: Array, reference: Array) -> Array:
        """Normalised and padded float32 [rows, width] of absolute targets [rows, dim].

        ``reference`` [dim of the state] is what the relative keys are relative to.
        """
        statistics = self.metadata.action_statistics
        dims = [statistics[k].dim for k in self.action_keys]
        parts = _split(raw, self.action_keys, dims)
        states = _split(
            reference[None],
            self.state_keys,
            [self.metadata.state_statistics[k].dim for k in self.state_keys],
        )
        for key in self.relative:
            if key in parts:
                parts[key] = parts[key] - states[key]
        out = state_vector(parts, self.action_keys, statistics, self.action_width)
        return out.astype(np.float32)


def _split(raw: Array, keys: Sequence[str], dims: Sequence[int]) -> dict[str, Array]:
    edges = np.cumsum([0, *dims])
    if raw.shape[1] != edges[-1]:
        raise ValueError(f"rows of {raw.shape[1]} values, the keys take {edges[-1]}")
    return {k: raw[:, a:b] for k, a, b in zip(keys, edges, edges[1:])}
