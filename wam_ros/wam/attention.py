"""The attention call, behind one function so that a machine can choose its kernel.

Tensors are [B, tokens, heads, head_dim] throughout; that is the layout in which the linears write
and in which the cache stores.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

# (q, k, v, mask or None) -> out, all [B, tokens, heads, head_dim]. The mask is [queries, keys],
# true where the query sees the key.
AttentionFn = Callable[
    [torch.Tensor, torch.Tensor, torch.Tensor, "torch.Tensor | None"], torch.Tensor
]


def sdpa(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """softmax(q k^T / sqrt(head_dim)) v with whichever kernel PyTorch picks."""
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)


def _restricted(kernel: SDPBackend) -> AttentionFn:
    def attend(
        q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        if mask is not None:  # only training forwards carry one, and not every kernel takes it
            return sdpa(q, k, v, mask)
        with sdpa_kernel(kernel):
            return sdpa(q, k, v)

    return attend


BACKENDS: dict[str, AttentionFn] = {
    "sdpa": sdpa,
    "flash": _restricted(SDPBackend.FLASH_ATTENTION),
    "cudnn": _restricted(SDPBackend.CUDNN_ATTENTION),
    "efficient": _restricted(SDPBackend.EFFICIENT_ATTENTION),
    "math": _restricted(SDPBackend.MATH),
}


def attention_backend(name: str) -> AttentionFn:
    """Return the backend ``name``; raises ValueError with the known names."""
    if name not in BACKENDS:
        raise ValueError(f"attention backend '{name}' is unknown; there are {', '.join(BACKENDS)}")
    return BACKENDS[name]
