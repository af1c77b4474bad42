"""Which layers stay as they are, and why."""

from __future__ import annotations

import re

KEPT: tuple[tuple[str, str], ...] = (
    (r"patch_embedding", "sees raw latents: every later layer inherits its error; 0.01 % of work"),
    (r"head\.", "its output is the velocity itself, which the sampler integrates"),
    (r"state_encoder\.", "one token from 64 values in joint units; precision is what it is for"),
    (r"action_encoder\.", "actions enter here; too few tokens to gain anything"),
    (r"action_decoder\.", "actions leave here; too few tokens to gain anything"),
    (r"time_(embedding|projection)\.", "scales and gates every token of every block; two rows"),
    (r"text_embedding\.", "runs once per instruction"),
    (r"img_emb\.", "runs once per window"),
    (r".*modulation$", "shift, scale and gate of whole blocks"),
    (r".*norm", "a vector per norm, nothing to gain"),
)
"""Patterns of parameter or module names of the transformer, with the reason to keep them."""

QUANTIZED = re.compile(
    r"blocks\.\d+\.((self_attn|cross_attn)\.(qkv|q|k|v|o|k_img|v_img)|ffn\.(0|2))$"
)
"""The linears that hold 97 % of the weights and almost all of the work."""

ALIGNMENT = 16
"""Widths that 8-bit kernels take are multiples of this."""


def reason_to_keep(name: str, inputs: int, outputs: int) -> str | None:
    """Why the linear ``name`` stays in full precision; None when it is to be quantised."""
    for pattern, reason in KEPT:
        if re.match(pattern, name):
            return reason
    if not QUANTIZED.match(name):
        return "not a layer this table knows"
    if inputs % ALIGNMENT or outputs % ALIGNMENT:
        return f"{inputs} x {outputs}: 8-bit kernels take multiples of {ALIGNMENT}"
    return None
