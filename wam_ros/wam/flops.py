"""How much arithmetic a call takes, and what each saving leaves out.

Multiply-adds count twice. Patch embedding, output heads and the action MLPs are left out: together
a few thousandths of a forward.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from wam_ros.wam.config import DiTConfig, WamConfig


@dataclass(frozen=True)
class Forward:
    """Operations of one forward of one branch, by kind."""

    linear: float
    context_kv: float
    context_scores: float
    time: float
    context_embedding: float
    self_attention: float

    @property
    def total(self) -> float:
        """All of it."""
        return (
            self.linear
            + self.context_kv
            + self.context_scores
            + self.time
            + self.context_embedding
            + self.self_attention
        )


def forward(c: DiTConfig, frames: int, cached_frames: int, register: bool) -> Forward:
    """Operations of a forward over ``frames`` new latent frames with ``cached_frames`` behind them.

    ``register`` adds the action and state tokens, as in denoising.
    """
    tokens = frames * c.frame_seqlen + (c.register_len if register else 0)
    keys = cached_frames * c.frame_seqlen + tokens
    context = c.text_len + c.image_tokens
    d, n = c.dim, c.num_layers
    embed_text = c.text_len * d * (c.text_dim + d)
    embed_image = c.image_tokens * c.image_dim * (c.image_dim + d)
    return Forward(
        linear=2 * n * tokens * (6 * d * d + 2 * d * c.ffn_dim),
        context_kv=2 * n * context * 2 * d * d,
        context_scores=4 * n * tokens * context * d,
        time=2 * tokens * d * (c.freq_dim + 7 * d),
        context_embedding=2 * (embed_text + embed_image),
        self_attention=4 * n * tokens * keys * d,
    )


def window_calls(c: DiTConfig) -> tuple[int, ...]:
    """Cached latent frames during the denoising of each call of a window: 1, 1 + K, ..."""
    k = c.num_frame_per_block
    return tuple(range(1, c.local_attn_size, k))


def prefill_of(c: DiTConfig, cached: int) -> Forward:
    """The prefill that led to ``cached`` frames: one frame at first, else a block."""
    k = c.num_frame_per_block
    frames = 1 if cached == 1 else k
    return forward(c, frames, cached - frames, register=False)


def chunk(c: DiTConfig, computed_steps: int, branches: int = 2) -> float:
    """Transformer operations per chunk on the plain path, mean over the calls of a window."""
    calls = window_calls(c)
    each = (
        prefill_of(c, n).total + computed_steps * forward(c, c.num_frame_per_block, n, True).total
        for n in calls
    )
    return branches * sum(each) / len(calls)


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
    """Operations of the encoders; the VAE's are counted by running it on meta tensors."""
    import torch

    from wam_ros.wam.vae import VideoVae

    with torch.device("meta"), torch.no_grad():
        vae = VideoVae(config.vae)
        size = (config.head.video_height, config.head.video_width)
        first = counted(lambda: vae.encode(torch.zeros(1, 3, 1, *size)))
        two = counted(lambda: vae.encode(torch.zeros(1, 3, 5, *size)))
    t, tokens = config.t5, config.dit.text_len
    linear = 2 * tokens * t.num_layers * (4 * t.dim * t.dim_attn + 3 * t.dim * t.dim_ffn)
    scores = 4 * tokens * tokens * t.num_layers * t.dim_attn
    return Encoders(first, two - first, linear + scores)


def saved(config: WamConfig, computed_steps: int, costs: Encoders) -> dict[str, float]:
    """Operations each switch of `Savings` leaves out per chunk, mean over a window, CFG on.

    ``staged_vae`` and ``lazy_conditioning`` count what leaves the critical path: of every call that
    continues a window, and of the call that starts one. Memory traffic does not count, so that
    ``static_cache`` and others that only save traffic or launches have 0.
    """
    c, k = config.dit, config.dit.num_frame_per_block
    calls = window_calls(c)
    share = 1 / len(calls)
    steps = [forward(c, k, n, True) for n in calls]
    prefills = [prefill_of(c, n) for n in calls]
    mean_step = sum(f.total for f in steps) * share
    mean_prefill = sum(f.total for f in prefills) * share
    per_forward = steps[0].context_kv + steps[0].context_embedding
    forwards = 2 * (1 + computed_steps)
    last_only = computed_steps == 1
    mean_time = sum(p.time + computed_steps * s.time for p, s in zip(prefills, steps)) * share
    clip = 1 + 4 * k
    return {
        "dead_uncond": mean_step + (mean_prefill if last_only else 0.0),
        "cache_context": (forwards - 2 * share) * per_forward + 2 * costs.text,
        "shared_time": 2 * mean_time,
        "static_cache": 0.0,
        "real_rope": 0.0,
        "fused_qkv": 0.0,
        "staged_vae": costs.vae(clip) - costs.vae_group,
        "lazy_conditioning": costs.vae(config.head.num_frames) - costs.vae(clip),
        "batched_cfg": 0.0,
        "dead_outputs": 2 * _prefill_tail(c, prefills) * share + _step_tail(c, steps) * share,
    }


def _prefill_tail(c: DiTConfig, prefills: list[Forward]) -> float:
    """Last layer of the prefills without its projections to queries, keys and values."""
    kept = 3 * c.dim / (6 * c.dim + 2 * c.ffn_dim)
    return sum(
        ((1 - kept) * p.linear + p.context_kv + p.context_scores + p.self_attention) / c.num_layers
        for p in prefills
    )


def _step_tail(c: DiTConfig, steps: list[Forward]) -> float:
    """Last layer of a final conditional step, for its video queries only."""
    video = c.num_frame_per_block * c.frame_seqlen
    share = video / (video + c.register_len)
    kept = 3 * c.dim / (6 * c.dim + 2 * c.ffn_dim)
    return sum(
        share * ((1 - kept) * s.linear + s.context_scores + s.self_attention) / c.num_layers
        for s in steps
    )
