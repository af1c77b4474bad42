"""Which of the observed frames a call is fed: those nearest to where training had them.

Positions count executed rows since the observation of the last call. A block of H rows is described
by T frames; the client of the reference sends four of 24 rows at 1, 8, 16, 24, and training took
eight at 3, 6, ... 24.
"""

from __future__ import annotations

from collections.abc import Sequence

_FRAMES_PER_LATENT = 4


def slots(frames: int, rows: float, frames_per_block: int) -> tuple[float, ...]:
    """Positions of ``frames`` frames of a block of ``rows`` rows, oldest first.

    The last lies at the block's end. With 4 K frames they divide the block evenly; with one more
    the first lies at its start; with fewer they span it from its first row on.

    Raises
    ------
    ValueError
        For less than two frames.
    """
    if frames < 2:
        raise ValueError(f"{frames} frames do not span a block; a window continues with 4 or more")
    if frames == _FRAMES_PER_LATENT * frames_per_block:
        return tuple(rows * (i + 1) / frames for i in range(frames))
    even = [rows * i / (frames - 1) for i in range(frames)]
    if frames < _FRAMES_PER_LATENT * frames_per_block:
        even[0] = min(1.0, even[1])
    return tuple(even)


def due(slot: float, position: float) -> bool:
    """Whether a frame at ``position`` may fill ``slot``: from half a row before it."""
    return position >= slot - 0.5


def pick(positions: Sequence[float], wanted: Sequence[float]) -> tuple[int, ...]:
    """Indices of the frames for ``wanted`` slots: the first that is due, else the newest.

    Raises
    ------
    ValueError
        When there is no frame.
    """
    if not positions:
        raise ValueError("no frame since the last call: feed observe() before chunk()")
    newest = len(positions) - 1
    return tuple(
        next((i for i, position in enumerate(positions) if due(slot, position)), newest)
        for slot in wanted
    )
