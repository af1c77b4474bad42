"""What a call of the policy head is asked and what it answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from wam_ros.wam.config import HeadConfig

Tokens = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class CallOptions:
    """How a call samples.

    Attributes
    ----------
    steps, dit_steps
        Sampler steps, and how many of 16 run the transformer (`skipping.static_steps`).
    dynamic
        Skip by the cosine rule instead of the fixed mask.
    final_noise
        Noise level at which the video's schedule ends (decoupled, "Flash"); 0 denoises it fully.
    guidance
        Scale of classifier-free guidance, which acts on the video only; 1 is without.
    want_video
        Whether the imagined latents are to be returned.
    """

    steps: int = 16
    dit_steps: int = 8
    dynamic: bool = False
    final_noise: float = 0.0
    guidance: float = 5.0
    want_video: bool = True

    @staticmethod
    def of(config: HeadConfig) -> CallOptions:
        """What the checkpoint's configuration says."""
        return CallOptions(
            config.num_inference_steps,
            config.dit_steps,
            config.dynamic_skip,
            config.video_inference_final_noise if config.decouple_inference_noise else 0.0,
            config.cfg_scale,
        )


@dataclass(frozen=True)
class CallResult:
    """What a call returns, and how it came about.

    Attributes
    ----------
    action
        [B, actions, action_dim], normalised.
    video
        Imagined latents [B, z, K, h, w], after the first call of a window with the first frame's
        latent before them; None when not wanted.
    observed
        Latents that entered the cache in this call, [B, z, 1 or K, h, w].
    reset
        Why the window started over; empty when it did not.
    start_frame, next_frame
        Window index of the block that was denoised, and of the next.
    timesteps
        Video timesteps at which the transformer ran.
    prefills, denoises
        Forwards of the (conditional, unconditional) branch.
    cached_tokens
        Tokens in the conditional cache.
    seconds
        Time per stage.
    """

    action: torch.Tensor
    video: torch.Tensor | None
    observed: torch.Tensor
    reset: str
    start_frame: int
    next_frame: int
    timesteps: tuple[int, ...]
    prefills: tuple[int, int]
    denoises: tuple[int, int]
    cached_tokens: int
    seconds: dict[str, float] = field(default_factory=dict)


NoiseFn = Callable[[tuple[int, ...], torch.dtype, torch.device], torch.Tensor]


def seeded_noise(seed: int) -> NoiseFn:
    """Normal noise from a fresh generator per tensor: every call sees the same noise."""

    def draw(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        generator = torch.Generator(device).manual_seed(seed)
        return torch.randn(shape, generator=generator, dtype=dtype, device=device)

    return draw
