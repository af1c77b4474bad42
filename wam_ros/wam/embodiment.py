"""State and action tokens: small MLPs whose linears can hold one weight per embodiment category.

The released models have one category, so a category id never changes the result; several are
supported because the layer's definition allows them.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn


class CategoryLinear(nn.Module):
    """``y = x W[c] + b[c]`` with W [categories, in, out], b [categories, out]."""

    def __init__(self, categories: int, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.W = nn.Parameter(0.02 * torch.randn(categories, in_dim, out_dim))
        self.b = nn.Parameter(torch.zeros(categories, out_dim))

    def forward(self, x: torch.Tensor, ids: torch.Tensor | None = None) -> torch.Tensor:
        """Map ``x`` [B, T, in]; ``ids`` [B] picks each row's category, None means category 0."""
        if ids is None:
            return torch.matmul(x, self.W[0]) + self.b[0]
        return torch.bmm(x, self.W[ids]) + self.b[ids][:, None]


class CategoryMLP(nn.Module):
    """Two category linears with a ReLU between: the state encoder and the action decoder."""

    def __init__(self, categories: int, in_dim: int, hidden: int, out_dim: int) -> None:
        super().__init__()
        self.layer1 = CategoryLinear(categories, in_dim, hidden)
        self.layer2 = CategoryLinear(categories, hidden, out_dim)

    def forward(self, x: torch.Tensor, ids: torch.Tensor | None = None) -> torch.Tensor:
        """Map [B, T, in] to [B, T, out]."""
        return self.layer2(F.relu(self.layer1(x, ids)), ids)


def action_sincos(t: torch.Tensor, width: int) -> torch.Tensor:
    """Encode action timesteps ``t`` [...] as [..., width] float32: sines first, then cosines."""
    half = width // 2
    index = torch.arange(half, dtype=torch.float32, device=t.device)
    angles = t.float()[..., None] * torch.exp(-index * (math.log(10000.0) / half))
    return torch.cat((angles.sin(), angles.cos()), dim=-1)


class ActionEncoder(nn.Module):
    """Action and its noise level to a token: ``W3 swish(W2 [W1 a ; sincos(t)])``."""

    def __init__(self, categories: int, action_dim: int, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.W1 = CategoryLinear(categories, action_dim, dim)
        self.W2 = CategoryLinear(categories, 2 * dim, dim)
        self.W3 = CategoryLinear(categories, dim, dim)

    def forward(
        self, action: torch.Tensor, t: torch.Tensor, ids: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Encode ``action`` [B, T, action_dim] as [B, T, D].

        ``t`` is [B, T], or [B, 1] where all actions share their level.
        """
        a = self.W1(action, ids)
        tau = action_sincos(t, self.dim).to(a.dtype).expand_as(a)
        h = self.W2(torch.cat((a, tau), dim=-1), ids)
        # Two roundings in bf16, where a fused SiLU has one: so it was trained.
        return self.W3(h * torch.sigmoid(h), ids)
