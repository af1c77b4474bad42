"""The diffusion transformer: its modules carry the stored names themselves."""

from __future__ import annotations

from wam_ros.wam.config import DiTConfig
from wam_ros.wam.keymaps import Entry

Part = tuple[str, tuple[int, ...]]


def entries(config: DiTConfig) -> list[Entry]:
    """All tensors of the transformer, names below `action_head.model.`."""
    c, d = config, config.dim
    parts: list[Part] = [
        *_conv_like("patch_embedding", (d, c.in_dim, *c.patch_size)),
        *_linear("text_embedding.0", c.text_dim, d),
        *_linear("text_embedding.2", d, d),
        *_linear("time_embedding.0", c.freq_dim, d),
        *_linear("time_embedding.2", d, d),
        *_linear("time_projection.1", d, 6 * d),
        *_norm("img_emb.proj.0", c.image_dim),
        *_linear("img_emb.proj.1", c.image_dim, c.image_dim),
        *_linear("img_emb.proj.3", c.image_dim, d),
        *_norm("img_emb.proj.4", d),
    ]
    for i in range(c.num_layers):
        parts += [(f"blocks.{i}.{name}", shape) for name, shape in _block(d, c.ffn_dim)]
    p = c.patch_size[0] * c.patch_size[1] * c.patch_size[2]
    parts += [
        ("head.modulation", (1, 2, d)),
        *_linear("head.head", d, p * c.out_dim),
        *_single_category("state_encoder.layer1", c.max_state_dim, c.hidden_size),
        *_single_category("state_encoder.layer2", c.hidden_size, d),
        *_single_category("action_encoder.W1", c.action_dim, d),
        *_single_category("action_encoder.W2", 2 * d, d),
        *_single_category("action_encoder.W3", d, d),
        *_single_category("action_decoder.layer1", d, c.hidden_size),
        *_single_category("action_decoder.layer2", c.hidden_size, c.action_dim),
    ]
    return [Entry(name, shape, (name,)) for name, shape in parts]


def _block(d: int, ffn: int) -> list[Part]:
    parts: list[Part] = [("modulation", (1, 6, d))]
    for attention, images in (("self_attn", ""), ("cross_attn", "_img")):
        projections = ["q", "k", "v", "o"] + ([f"k{images}", f"v{images}"] if images else [])
        norms = ["norm_q", "norm_k"] + ([f"norm_k{images}"] if images else [])
        for name in projections:
            parts += _linear(f"{attention}.{name}", d, d)
        parts += [(f"{attention}.{name}.weight", (d,)) for name in norms]
    return [*parts, *_norm("norm3", d), *_linear("ffn.0", d, ffn), *_linear("ffn.2", ffn, d)]


def _linear(name: str, inputs: int, outputs: int) -> list[Part]:
    return [(f"{name}.weight", (outputs, inputs)), (f"{name}.bias", (outputs,))]


def _conv_like(name: str, shape: tuple[int, ...]) -> list[Part]:
    return [(f"{name}.weight", shape), (f"{name}.bias", shape[:1])]


def _norm(name: str, width: int) -> list[Part]:
    return [(f"{name}.weight", (width,)), (f"{name}.bias", (width,))]


def _single_category(name: str, inputs: int, outputs: int) -> list[Part]:
    # The release keeps one weight for all embodiments, whatever its config says.
    return [(f"{name}.W", (1, inputs, outputs)), (f"{name}.b", (1, outputs))]
