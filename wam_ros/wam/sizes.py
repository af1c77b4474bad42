"""Read the sizes of the text encoder, image encoder and VAE off the shapes of stored tensors.

For states that come without a config: single-network files, recorded test data, and the check that
a checkpoint's tensors are what its config says.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from wam_ros.wam.config import (
    WAN21_MEAN,
    WAN21_STD,
    WAN22_MEAN,
    WAN22_STD,
    ClipConfig,
    T5Config,
    VaeConfig,
)

Shapes = Mapping[str, tuple[int, ...]]

_PUBLISHED = {16: (WAN21_MEAN, WAN21_STD), 48: (WAN22_MEAN, WAN22_STD)}


def t5_config(shapes: Shapes) -> T5Config:
    """Sizes of a text encoder, names without prefix (``token_embedding.weight``, ...)."""
    vocab, dim = shapes["token_embedding.weight"]
    buckets, heads = shapes["blocks.0.pos_embedding.embedding.weight"]
    return T5Config(
        vocab=vocab,
        dim=dim,
        dim_attn=shapes["blocks.0.attn.q.weight"][0],
        dim_ffn=shapes["blocks.0.ffn.fc1.weight"][0],
        num_heads=heads,
        num_layers=_count(shapes, r"blocks\.(\d+)\."),
        num_buckets=buckets,
    )


def clip_config(shapes: Shapes, num_heads: int) -> ClipConfig:
    """Sizes of an image tower; only the number of heads leaves no trace in the shapes."""
    dim, _, patch, _ = shapes["patch_embedding.weight"]
    return ClipConfig(
        image_size=round((shapes["pos_embedding"][1] - 1) ** 0.5) * patch,
        patch_size=patch,
        dim=dim,
        mlp_ratio=shapes["transformer.0.mlp.0.weight"][0] // dim,
        out_dim=shapes["head"][1] if "head" in shapes else ClipConfig.out_dim,
        num_heads=num_heads,
        num_layers=_count(shapes, r"transformer\.(\d+)\."),
    )


def vae_config(
    shapes: Shapes,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
) -> VaeConfig:
    """Sizes of a video VAE, original Wan names without prefix.

    Raises
    ------
    ValueError
        If no statistics are given and none are published for this number of channels.
    """
    z = shapes["conv2.weight"][0]
    if mean is None or std is None:
        if z not in _PUBLISHED:
            raise ValueError(
                f"a VAE of {z} latent channels needs latents_mean and latents_std; "
                f"they are known for {' and '.join(map(str, _PUBLISHED))} channels only"
            )
        mean, std = _PUBLISHED[z]
    residual = "encoder.downsamples.0.downsamples.0.residual.0.gamma" in shapes
    dim = shapes["encoder.conv1.weight"][0]
    stages = _residual_stages(shapes) if residual else _flat_stages(shapes)
    return VaeConfig(
        kind="wan2.2" if residual else "wan2.1",
        base_dim=dim,
        decoder_base_dim=shapes["decoder.head.0.gamma"][0],
        z_dim=z,
        dim_mult=tuple(width // dim for width, _, _ in stages),
        num_res_blocks=stages[0][1],
        temporal_downsample=tuple(temporal for _, _, temporal in stages[:-1]),
        latents_mean=mean,
        latents_std=std,
    )


def _count(shapes: Shapes, pattern: str) -> int:
    return 1 + max(int(m.group(1)) for name in shapes if (m := re.match(pattern, name)))


def _flat_stages(shapes: Shapes) -> list[tuple[int, int, bool]]:
    """(channels, residual blocks, halves time) of every encoder stage, Wan2.1 naming."""
    stages = []
    width, blocks = 0, 0
    for k in range(_count(shapes, r"encoder\.downsamples\.(\d+)\.")):
        name = f"encoder.downsamples.{k}"
        if f"{name}.resample.1.weight" in shapes:
            stages.append((width, blocks, f"{name}.time_conv.weight" in shapes))
            blocks = 0
        else:
            width, blocks = shapes[f"{name}.residual.2.weight"][0], blocks + 1
    return [*stages, (width, blocks, False)]


def _residual_stages(shapes: Shapes) -> list[tuple[int, int, bool]]:
    """The same, Wan2.2 naming."""
    stages = []
    for i in range(_count(shapes, r"encoder\.downsamples\.(\d+)\.")):
        name = f"encoder.downsamples.{i}.downsamples"
        n = _count(shapes, rf"encoder\.downsamples\.{i}\.downsamples\.(\d+)\.residual\.")
        width = shapes[f"{name}.0.residual.2.weight"][0]
        stages.append((width, n, f"{name}.{n}.time_conv.weight" in shapes))
    return stages
