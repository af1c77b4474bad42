"""Blocks of the transformer. Parameter names are those of the released checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from wam_ros.wam.attention import AttentionFn
from wam_ros.wam.cache import KV, Slot
from wam_ros.wam.config import DiTConfig
from wam_ros.wam.rope import Rotation

TextImageKV = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


class RMSNorm(nn.Module):
    """RMS norm over the last axis: in float32, cast back, then times the scale."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise ``x`` [..., dim]."""
        wide = x.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return wide.to(x.dtype) * self.weight


@dataclass(frozen=True)
class TimeRows:
    """Time-dependent rows and how many consecutive tokens share each.

    ``rows`` is [B or 1, R, ..., D]. ``lengths`` holds R counts that sum to the number of tokens;
    None says that every token has a row of its own.
    """

    rows: torch.Tensor
    lengths: tuple[int, ...] | None = None

    def modulate(self, x: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """``x (1 + scale) + shift``; shift and scale [B or 1, R, D], x [B, tokens, D]."""
        return self._apply(lambda t, c, s: t * (1 + c) + s, x, scale, shift)

    def gate(self, x: torch.Tensor, update: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
        """``x + update * gate``; gate [B or 1, R, D]."""
        if self.lengths is None or len(self.lengths) == 1:
            return x + update * gate
        parts = zip(x.split(self.lengths, 1), update.split(self.lengths, 1), self._each(gate))
        return torch.cat([a + u * g for a, u, g in parts], 1)

    def _each(self, rows: torch.Tensor) -> list[torch.Tensor]:
        return [rows[:, i : i + 1] for i in range(rows.shape[1])]

    def _apply(
        self,
        function: Callable[..., torch.Tensor],
        x: torch.Tensor,
        first: torch.Tensor,
        second: torch.Tensor,
    ) -> torch.Tensor:
        if self.lengths is None or len(self.lengths) == 1:
            return function(x, first, second)
        parts = zip(x.split(self.lengths, 1), self._each(first), self._each(second))
        return torch.cat([function(*part) for part in parts], 1)

    def tail(self, skip: int, tokens: int) -> TimeRows:
        """The rows of the last ``tokens`` tokens, which follow ``skip`` others.

        With shared rows the tail has to be the last segment.
        """
        if self.lengths is None:
            return TimeRows(self.rows[:, skip:])
        return TimeRows(self.rows[:, -1:], (tokens,))


class SelfAttention(nn.Module):
    """Self-attention with RMS-normed, rotated queries and keys.

    ``q``, ``k``, ``v`` are three linears as in the checkpoint, or after `fuse` one, ``qkv``.
    """

    def __init__(self, dim: int, heads: int, eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(dim, dim)
        self.k = nn.Linear(dim, dim)
        self.v = nn.Linear(dim, dim)
        self.o = nn.Linear(dim, dim)
        self.norm_q = RMSNorm(dim, eps)
        self.norm_k = RMSNorm(dim, eps)

    @property
    def fused(self) -> bool:
        """Whether the three projections are one linear."""
        return hasattr(self, "qkv")

    def fuse(self) -> None:
        """Replace q, k, v by one linear. Load the checkpoint first: the names change.

        Quantised projections join where their kind can be joined, and stay three otherwise.
        """
        if self.fused:
            return
        parts = (self.q, self.k, self.v)
        if hasattr(self.q, "join"):
            qkv = type(self.q).join(parts)
        elif type(self.q) is nn.Linear:
            weight = torch.cat([p.weight.detach() for p in parts])
            qkv = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
            qkv.weight = nn.Parameter(weight, requires_grad=self.q.weight.requires_grad)
            bias = torch.cat([p.bias.detach() for p in parts])
            qkv.bias = nn.Parameter(bias, requires_grad=self.q.bias.requires_grad)
        else:
            return
        del self.q, self.k, self.v
        self.qkv = qkv

    def split(self) -> None:
        """Undo `fuse`, for saving."""
        if not self.fused:
            return
        if hasattr(self.qkv, "separate"):
            for name, part in zip("qkv", self.qkv.separate(3)):
                setattr(self, name, part)
            del self.qkv
            return
        weights, biases = self.qkv.weight.chunk(3), self.qkv.bias.chunk(3)
        for name, weight, bias in zip("qkv", weights, biases):
            part = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
            part.weight = nn.Parameter(weight.detach().clone(), weight.requires_grad)
            part.bias = nn.Parameter(bias.detach().clone(), bias.requires_grad)
            setattr(self, name, part)
        del self.qkv

    def project(self, x: torch.Tensor, rotation: Rotation) -> tuple[torch.Tensor, ...]:
        """Queries, keys, values [B, S, heads, head_dim] of ``x`` [B, S, D], q and k rotated."""
        q, k, v = self.qkv(x).chunk(3, -1) if self.fused else (self.q(x), self.k(x), self.v(x))
        split = (self.heads, -1)
        q = rotation.turn(self.norm_q(q).unflatten(-1, split)).to(v.dtype)
        k = rotation.turn(self.norm_k(k).unflatten(-1, split)).to(v.dtype)
        return q, k, v.unflatten(-1, split)


class CrossAttention(nn.Module):
    """Two attentions with the same queries, to text and to image tokens, summed. No masks."""

    def __init__(self, dim: int, heads: int, eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(dim, dim)
        self.k = nn.Linear(dim, dim)
        self.v = nn.Linear(dim, dim)
        self.o = nn.Linear(dim, dim)
        self.k_img = nn.Linear(dim, dim)
        self.v_img = nn.Linear(dim, dim)
        self.norm_q = RMSNorm(dim, eps)
        self.norm_k = RMSNorm(dim, eps)
        self.norm_k_img = RMSNorm(dim, eps)

    def keys_values(self, text: torch.Tensor, image: torch.Tensor) -> TextImageKV:
        """Keys and values of the projected context; they only change with prompt and image."""
        split = (self.heads, -1)
        return (
            self.norm_k(self.k(text)).unflatten(-1, split),
            self.v(text).unflatten(-1, split),
            self.norm_k_img(self.k_img(image)).unflatten(-1, split),
            self.v_img(image).unflatten(-1, split),
        )

    def forward(self, x: torch.Tensor, kv: TextImageKV, attend: AttentionFn) -> torch.Tensor:
        """Attend from ``x`` [B, S, D] to the context."""
        q = self.norm_q(self.q(x)).unflatten(-1, (self.heads, -1))
        k, v, k_img, v_img = kv
        out = attend(q, k, v, None).flatten(2) + attend(q, k_img, v_img, None).flatten(2)
        return self.o(out)


class Block(nn.Module):
    """Self-attention and feed-forward, modulated by time; cross-attention between, un-gated."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        dim, eps = config.dim, config.eps
        self.eps = eps
        self.self_attn = SelfAttention(dim, config.num_heads, eps)
        self.norm3 = nn.LayerNorm(dim, eps)
        self.cross_attn = CrossAttention(dim, config.num_heads, eps)
        self.ffn = nn.Sequential(
            nn.Linear(dim, config.ffn_dim),
            nn.GELU(approximate="tanh"),
            nn.Linear(config.ffn_dim, dim),
        )
        self.modulation = nn.Parameter(torch.randn(1, 6, dim) / dim**0.5)

    def norm(self, x: torch.Tensor) -> torch.Tensor:
        """LayerNorm without scale or shift."""
        return F.layer_norm(x, x.shape[-1:], eps=self.eps)

    def project(
        self, x: torch.Tensor, time: TimeRows, rotation: Rotation
    ) -> tuple[torch.Tensor, ...]:
        """Queries, keys and values of the block's self-attention for ``x`` [B, S, D]."""
        shift, scale = (self.modulation[:, :2] + time.rows[..., :2, :]).unbind(-2)
        return self.self_attn.project(time.modulate(self.norm(x), shift, scale), rotation)

    def forward(
        self,
        x: torch.Tensor,
        time: TimeRows,
        rotation: Rotation,
        slot: Slot | None,
        context: TextImageKV,
        attend: AttentionFn,
        mask: torch.Tensor | None = None,
        skip: int = 0,
    ) -> tuple[torch.Tensor, KV]:
        """Run the block on ``x`` [B, S, D]; returns the new ``x`` and the own keys and values.

        ``time.rows`` is [B or 1, R, 6, D]: shift, scale, gate of attention and of feed-forward.
        The first ``skip`` tokens serve as keys and values only and are dropped from the result.
        """
        q, k, v = self.project(x, time, rotation)
        keys, values = (k, v) if slot is None else slot.fill(k, v)
        if skip:
            x, q = x[:, skip:], q[:, skip:]
            time = time.tail(skip, x.shape[1])
        attended = attend(q, keys, values, mask)
        return self.finish(x, attended, time, context, attend), (k, v)

    def finish(
        self,
        x: torch.Tensor,
        attended: torch.Tensor,
        time: TimeRows,
        context: TextImageKV,
        attend: AttentionFn,
    ) -> torch.Tensor:
        """What follows self-attention's kernel; ``attended`` [B, S, heads, head_dim].

        Like `project` it knows nothing of the cache, so that one compilation serves all lengths.
        """
        rows = self.modulation[:, 2:] + time.rows[..., 2:, :]
        gate1, shift2, scale2, gate2 = rows.unbind(-2)
        x = time.gate(x, self.self_attn.o(attended.flatten(2)), gate1)
        x = x + self.cross_attn(self.norm3(x), context, attend)
        out = self.ffn(time.modulate(self.norm(x), shift2, scale2))
        return time.gate(x, out, gate2)


class Head(nn.Module):
    """Modulated norm and projection of the video tokens to latent patches."""

    def __init__(self, dim: int, out_dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.head = nn.Linear(dim, out_dim)
        self.modulation = nn.Parameter(torch.randn(1, 2, dim) / dim**0.5)

    def forward(self, x: torch.Tensor, time: TimeRows) -> torch.Tensor:
        """Map ``x`` [B, S, D] to [B, S, out]; ``time.rows`` is the embedding [B or 1, R, D]."""
        shift, scale = (self.modulation + time.rows[..., None, :]).unbind(-2)
        x = F.layer_norm(x, x.shape[-1:], eps=self.eps)
        return self.head(time.modulate(x, shift, scale))
