"""Tiny policy heads and made-up calls for the tests."""

from __future__ import annotations

import copy
from functools import lru_cache
from typing import Any

import torch

from wam_ros.wam.checkpoint.load import Networks
from wam_ros.wam.config import WamConfig
from wam_ros.wam.head import CallOptions, CallResult, PolicyHead, Tokens
from wam_ros.wam.presets import tiny
from wam_ros.wam.savings import Savings

from .conftest import random_networks


@lru_cache
def _networks(kind: str, rows: int, num_frames: int) -> tuple[WamConfig, Networks]:
    config = tiny(kind=kind, action_rows=rows, num_frames=num_frames)
    return config, random_networks(config)


def make_head(
    savings: Savings | None = None,
    kind: str = "wan2.1",
    rows: int = 24,
    num_frames: int = 33,
    **kw: Any,
) -> PolicyHead:
    """A head with the same random weights every time."""
    config, n = _networks(kind, rows, num_frames)
    dit = copy.deepcopy(n.dit)
    return PolicyHead(config, dit, n.text, n.image, n.vae, tokens(99), savings, **kw)


def tokens(seed: int) -> Tokens:
    """Made-up prompt tokens."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, 120, (1, 16), generator=generator)
    mask = (torch.arange(16) < 10).long()[None]
    return ids * mask, mask


def images(head: PolicyHead, frames: int, seed: int) -> torch.Tensor:
    """Made-up composites [1, frames, H, W, 3]."""
    h = head.config.head
    generator = torch.Generator().manual_seed(seed)
    shape = (1, frames, h.video_height, h.video_width, 3)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def state(head: PolicyHead, seed: int = 0) -> torch.Tensor:
    """A made-up normalised state."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(1, 1, head.dit.config.max_state_dim, generator=generator) * 2 - 1


def run_calls(
    head: PolicyHead, options: CallOptions, counts: tuple[int, ...] = (1, 4, 8, 9, 4, 4)
) -> list[CallResult]:
    """Successive calls; the observation is staged where the head saves that way."""
    results = []
    for i, count in enumerate(counts):
        video, (ids, mask) = images(head, count, i), tokens(0)
        staged = None
        if head.savings.staged_vae and not head.will_reset(ids, count):
            clip = head.stage(count)
            with torch.no_grad():
                for j in range(count):
                    clip.push(head.prepare(video[:, j : j + 1]))
                staged = clip.latents()
        results.append(head.call(video, ids, mask, state(head, i), options, staged=staged))
    return results
