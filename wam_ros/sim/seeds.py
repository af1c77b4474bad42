"""Which seeds may be trained on, and which are for judging.

Everything random about an episode comes from one non-negative integer. Even seeds belong to
training, odd ones to evaluation; numbered episodes are mapped onto them here, so that no command
line can mix them up. Streams drawn from one seed (placement, light, sentence, ...) are kept apart
by a tag, so that two different draws never share their random numbers.
"""

from __future__ import annotations

import zlib

import numpy as np

from wam_ros.sim.language import SPLITS, Split


def episode_seed(split: Split, index: int) -> int:
    """Seed of episode ``index`` (0, 1, ...) of ``train`` or ``held_out``."""
    if split not in SPLITS:
        raise ValueError(f"unknown split '{split}'; there are {' and '.join(SPLITS)}")
    if index < 0:
        raise ValueError(f"episode index {index} must not be negative")
    return 2 * index + (split == "held_out")


def split_of(seed: int) -> Split:
    """The split a seed belongs to."""
    if seed < 0:
        raise ValueError(f"seed {seed} must not be negative")
    return "held_out" if seed % 2 else "train"


def stream(seed: int, tag: str) -> np.random.Generator:
    """Random numbers of one purpose; the same seed and tag, the same numbers on any machine."""
    return np.random.default_rng([zlib.crc32(tag.encode()), seed])
