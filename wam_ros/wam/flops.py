"""Floating point operations of a call, counted from the dimensions: 2 per multiply-add.

Matrix products, convolutions and attention count; norms, activations and rotations do not.
`Forward` holds one forward of the transformer by what it is spent on, `chunk` the mean over a
window of calls with the savings in force.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

from wam_ros.wam.config import DiTConfig, WamConfig
from wam_ros.wam.head import CallOptions
from wam_ros.wam.savings import Savings
from wam_ros.wam.skipping import static_steps


@dataclass(frozen=True)
class Forward:
    """FLOP of a forward, by part.

    Attributes
    ----------
    linear
        Linears on the sequence: blocks, patches, state and action tokens, video head.
    self_attention, context_scores
        Scores and weighted sums of self- and cross-attention.
    context_kv
        Cross-attention keys and values of prompt and image, all layers.
    context_embedding
        Projections of prompt and image to the model's width.
    time
        Time embedding and its projection to modulations.
    """

    linear: float
    self_attention: float
    context_scores: float
    context_kv: float
    context_embedding: float
    time: float

    @property
    def total(self) -> float:
        """All parts."""
        return sum(getattr(self, f.name) for f in fields(self))


def _mlp(*widths: int) -> int:
    """Multiply-adds per token of linears in a row."""
    return sum(a * b for a, b in pairwise(widths))


def context_embedding(c: DiTConfig) -> float:
    """FLOP of projecting one prompt and one image to the model's width."""
    text = c.text_len * _mlp(c.text_dim, c.dim, c.dim)
    image = c.image_tokens * _mlp(c.image_dim, c.image_dim, c.dim)
    return 2.0 * (text + image)


def context_kv(c: DiTConfig, layers: int | None = None) -> float:
    """FLOP of one context's cross-attention keys and values in ``layers`` (all by default)."""
    layers = c.num_layers if layers is None else layers
    return 2.0 * layers * (c.text_len + c.image_tokens) * 2 * c.dim**2


def _time(c: DiTConfig, rows: int) -> float:
    return 2.0 * rows * _mlp(c.freq_dim, c.dim, 7 * c.dim)


def _blocks(c: DiTConfig, tokens: int, keys: int, last: int | None) -> tuple[float, float, float]:
    """Linears, self-attention and cross-attention of all blocks.

    ``last`` counts the tokens that pass through the last block behind its keys and values.
    """
    behind = [tokens] * (c.num_layers - 1) + [tokens if last is None else last]
    through, context = sum(behind), c.text_len + c.image_tokens
    project = 3 * c.dim**2 * c.num_layers * tokens
    rest = (3 * c.dim**2 + 2 * c.dim * c.ffn_dim) * through
    return (
        2.0 * (project + rest),
        4.0 * c.dim * keys * through,
        4.0 * c.dim * context * through,
    )


def prefill(c: DiTConfig, frames: int, cached: int, savings: Savings) -> Forward:
    """One branch's forward that appends ``frames`` latent frames to ``cached`` ones."""
    tokens = frames * c.frame_seqlen
    dead = savings.dead_outputs
    linear, own, cross = _blocks(c, tokens, cached * c.frame_seqlen + tokens, 0 if dead else None)
    patch = c.patch_size[0] * c.patch_size[1] * c.patch_size[2]
    linear += 2.0 * tokens * patch * c.in_dim * c.dim
    if not dead:
        linear += 2.0 * tokens * patch * c.out_dim * c.dim
    kept = savings.cache_context
    return Forward(
        linear,
        own,
        cross,
        0.0 if kept else context_kv(c, c.num_layers - dead),
        0.0 if kept else context_embedding(c),
        # A single frame's rows are not worth another shape.
        _time(c, 1 if savings.shared_time and frames > 1 else tokens),
    )


def denoise(c: DiTConfig, cached: int, savings: Savings, want_video: bool = True) -> Forward:
    """One branch's forward on a block of video, actions and state after ``cached`` frames."""
    video = c.num_frame_per_block * c.frame_seqlen
    tokens = video + c.register_len
    dead = savings.dead_outputs and not want_video
    keys = cached * c.frame_seqlen + tokens
    linear, own, cross = _blocks(c, tokens, keys, c.register_len if dead else None)
    patch = c.patch_size[0] * c.patch_size[1] * c.patch_size[2]
    channels = c.in_dim + (0 if dead else c.out_dim)
    action = c.action_dim * c.dim + 3 * c.dim**2 + _mlp(c.dim, c.hidden_size, c.action_dim)
    state = _mlp(c.max_state_dim, c.hidden_size, c.dim)
    linear += 2.0 * (
        video * patch * channels * c.dim
        + c.num_action_per_block * action
        + c.num_state_per_block * state
    )
    kept = savings.cache_context
    return Forward(
        linear,
        own,
        cross,
        0.0 if kept else context_kv(c),
        0.0 if kept else context_embedding(c),
        _time(c, 2 if savings.shared_time else tokens),
    )


def forward(c: DiTConfig, frames: int, cached_frames: int, register: bool) -> Forward:
    """A plain forward of one branch over a block with ``register``, or a prefill without."""
    if register and frames != c.num_frame_per_block:
        raise ValueError(f"denoising takes {c.num_frame_per_block} latent frames, not {frames}")
    if register:
        return denoise(c, cached_frames, Savings.none())
    return prefill(c, frames, cached_frames, Savings.none())


def window_calls(c: DiTConfig) -> tuple[int, ...]:
    """Cached latent frames during the denoising of each call of a window: 1, 1 + K, ..."""
    return tuple(range(1, max(2, c.local_attn_size), c.num_frame_per_block))


@dataclass(frozen=True)
class Chunk:
    """Mean of the calls of one window.

    Attributes
    ----------
    forwards
        Transformer forwards per call, both branches.
    flops
        FLOP of the transformer per call, projections of the context included.
    """

    forwards: float
    flops: float


def chunk(config: WamConfig, options: CallOptions, savings: Savings) -> Chunk:
    """Cost of a call, averaged over the calls of a window.

    Step skipping is that of the fixed mask; what the dynamic rule skips depends on the data.
    """
    c = config.dit
    k = c.num_frame_per_block
    calls = window_calls(c)
    steps = len(static_steps(options.steps, options.dit_steps))
    lean = savings.dead_uncond and not options.want_video
    forwards, flops = 0, 0.0
    for cached in calls:
        frames = 1 if cached == 1 else k
        first = prefill(c, frames, cached - frames, savings).total
        # The unconditional prefills wait, and in one-step operation nothing ever wants them.
        branches = 1 if lean and steps == 1 else 2
        forwards += branches
        flops += branches * first
        for step in range(steps):
            video = options.want_video or step < steps - 1
            branches = 1 if lean and step == steps - 1 else 2
            forwards += branches
            flops += branches * denoise(c, cached, savings, video).total
    if savings.cache_context:
        contexts = 1 if lean and steps == 1 else 2
        flops += contexts * (context_embedding(c) + context_kv(c))
    return Chunk(forwards / len(calls), flops / len(calls))


def counted(function: Callable[[], Any]) -> float:
    """Operations PyTorch counts while ``function`` runs; on meta tensors it costs nothing."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        function()
    return float(counter.get_total_flops())


@dataclass(frozen=True)
class Encoders:
    """Operations of the encoders: VAE per clip length, text per prompt."""

    vae_first: float
    vae_group: float
    text: float

    def vae(self, frames: int) -> float:
        """Encoding of 1 + 4 n frames."""
        return self.vae_first + (frames - 1) // 4 * self.vae_group


def encoders(config: WamConfig) -> Encoders:
    """Operations of the encoders; the VAE's on meta tensors, which are convolved as on a GPU."""
    import torch

    from wam_ros.wam.vae import VideoVae

    with torch.device("meta"), torch.no_grad():
        vae = VideoVae(config.vae)
        size = (config.head.video_height, config.head.video_width)
        first = counted(lambda: vae.encode(torch.zeros(1, 3, 1, *size)))
        two = counted(lambda: vae.encode(torch.zeros(1, 3, 5, *size)))
    t, n = config.t5, config.dit.text_len
    per_token = 4 * t.dim * t.dim_attn + 3 * t.dim * t.dim_ffn
    text = 2.0 * t.num_layers * (n * per_token + 2 * n * n * t.dim_attn)
    return Encoders(first, two - first, text)
