"""Image encoder: original Wan names against the vision tower of `transformers.CLIPVisionModel`."""

from __future__ import annotations

from wam_ros.wam.config import ClipConfig
from wam_ros.wam.keymaps import Entry


def entries(config: ClipConfig) -> list[Entry]:
    """All tensors of the image tower, names below `action_head.image_encoder.model.visual.`.

    The last layer, the final norm and the head are stored but not used: the features are taken one
    layer before the end.
    """
    d, p = config.dim, config.patch_size
    out = [
        Entry("patch_embedding.weight", (d, 3, p, p), ("embeddings.patch_embedding.weight",)),
        Entry("cls_embedding", (1, 1, d), ("embeddings.class_embedding",)),
        Entry("pos_embedding", (1, config.tokens, d), ("embeddings.position_embedding.weight",)),
        *_affine("pre_norm", (d,), ("pre_layrnorm",)),
    ]
    for i in range(config.num_layers):
        layer = f"encoder.layers.{i}" if i < config.num_layers - 1 else None
        out += _layer(f"transformer.{i}", config, layer)
    return [
        *out,
        *_affine("post_norm", (d,), ()),
        Entry("head", (d, config.out_dim), ()),
    ]


def _layer(name: str, config: ClipConfig, target: str | None) -> list[Entry]:
    d, m = config.dim, config.dim * config.mlp_ratio
    parts: list[tuple[str, tuple[int, ...], tuple[str, ...]]] = [
        ("norm1", (d,), ("layer_norm1",)),
        ("attn.to_qkv", (3 * d, d), tuple(f"self_attn.{x}_proj" for x in "qkv")),
        ("attn.proj", (d, d), ("self_attn.out_proj",)),
        ("norm2", (d,), ("layer_norm2",)),
        ("mlp.0", (m, d), ("mlp.fc1",)),
        ("mlp.2", (d, m), ("mlp.fc2",)),
    ]
    out = []
    for n, shape, targets in parts:
        full = tuple(f"{target}.{t}" for t in targets) if target else ()
        out += _affine(f"{name}.{n}", shape, full)
    return out


def _affine(name: str, shape: tuple[int, ...], targets: tuple[str, ...]) -> list[Entry]:
    return [
        Entry(f"{name}.weight", shape, tuple(f"{t}.weight" for t in targets)),
        Entry(f"{name}.bias", shape[:1], tuple(f"{t}.bias" for t in targets)),
    ]
