"""Text encoder: original Wan names against `transformers.UMT5EncoderModel`."""

from __future__ import annotations

from wam_ros.wam.config import T5Config
from wam_ros.wam.keymaps import Entry


def entries(config: T5Config) -> list[Entry]:
    """All tensors of the text encoder, names below `action_head.text_encoder.`."""
    d, a, f = config.dim, config.dim_attn, config.dim_ffn
    # transformers ties these two names to one parameter.
    out = [Entry("token_embedding.weight", (config.vocab, d), ("shared.weight",))]
    for i in range(config.num_layers):
        block, layer = f"blocks.{i}", f"encoder.block.{i}.layer"
        attn, ff = f"{layer}.0.SelfAttention", f"{layer}.1.DenseReluDense"
        parts: list[tuple[str, tuple[int, ...], str]] = [
            ("norm1", (d,), f"{layer}.0.layer_norm"),
            *((f"attn.{x}", (a, d), f"{attn}.{x}") for x in "qkv"),
            ("attn.o", (d, a), f"{attn}.o"),
            (
                "pos_embedding.embedding",
                (config.num_buckets, config.num_heads),
                f"{attn}.relative_attention_bias",
            ),
            ("norm2", (d,), f"{layer}.1.layer_norm"),
            ("ffn.gate.0", (f, d), f"{ff}.wi_0"),
            ("ffn.fc1", (f, d), f"{ff}.wi_1"),
            ("ffn.fc2", (d, f), f"{ff}.wo"),
        ]
        out += [Entry(f"{block}.{n}.weight", s, (f"{t}.weight",)) for n, s, t in parts]
    return [*out, Entry("norm.weight", (d,), ("encoder.final_layer_norm.weight",))]
