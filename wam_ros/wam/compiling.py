"""Compilation of the transformer's blocks, region by region."""

from __future__ import annotations

from types import MethodType
from typing import Any

from wam_ros.wam.dit import CausalDiT
from wam_ros.wam.layers import Block

MODES = ("default", "max-autotune-no-cudagraphs")

# Regions are told apart by token count, skipped tokens and which of prefill and denoising it is.
_VARIANTS = 64


def compile_blocks(
    dit: CausalDiT, mode: str = "max-autotune-no-cudagraphs", backend: str = "inductor"
) -> None:
    """Compile what comes before and after self-attention's kernel, once for all blocks.

    The two regions know nothing of the cache: norms, modulation, rotation, activation and the
    casts of quantised linears fuse around their matrix products, while writing to the cache and
    attending to it stay plain calls, so that a longer past compiles nothing anew. Apply fusing and
    precision first. The compiler runs at the first forward of each shape.
    """
    import torch._dynamo

    config: Any = torch._dynamo.config
    # Its name changed from cache_size_limit; both count variants of one function.
    for name in ("recompile_limit", "cache_size_limit"):
        if hasattr(config, name):
            setattr(config, name, max(_VARIANTS, getattr(config, name)))
    options: dict[str, Any] = {"dynamic": False, "backend": backend}
    if mode != "default":
        options["mode"] = mode
    project = torch.compile(Block.project, **options)
    finish = torch.compile(Block.finish, **options)
    for block in dit.blocks:
        block.project = MethodType(project, block)
        block.finish = MethodType(finish, block)


def release_blocks(dit: CausalDiT) -> None:
    """Undo `compile_blocks`."""
    for block in dit.blocks:
        for name in ("project", "finish"):
            block.__dict__.pop(name, None)
