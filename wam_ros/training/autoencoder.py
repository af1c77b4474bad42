"""First stage: the video VAE, on crops of short clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from wam_ros.training.episodes import Array, Episode
from wam_ros.training.trainer import Losses
from wam_ros.wam.config import VaeConfig
from wam_ros.wam.vae import VideoVae

NOISE = 0.1
"""Standard deviation of what is added to latents, so that near latents decode to near pictures."""
SHRINK = 1e-3
"""Weight of the squared latents; keeps their scale near one without a posterior to sample."""


def pixels(frames: Array) -> Tensor:
    """Composites uint8 [..., T, H, W, 3] as float32 [..., 3, T, H, W] in [-1, 1]."""
    # A copy: frames may be a file mapped read-only.
    x = torch.from_numpy(np.array(frames)).float().div_(127.5).sub_(1.0)
    return x.movedim(-1, -4)


class ClipLoss:
    """Reconstruction error of random crops.

    Parameters
    ----------
    crop
        Side of the square crops in pixels, a multiple of the VAE's stride; 0 takes whole frames.
    frames
        Per clip, 1 + 4 n: as many as a block has with its opening frame. Latents beyond those that
        were trained on are not understood by the decoder.
    """

    def __init__(
        self,
        vae: VideoVae,
        episodes: Sequence[Episode],
        batch: int = 16,
        frames: int = 9,
        crop: int = 48,
        seed: int = 0,
    ) -> None:
        self._vae, self._episodes = vae, [e for e in episodes if len(e.frames) >= frames]
        if not self._episodes:
            raise ValueError(f"no episode has the {frames} frames of a clip")
        self._batch, self._frames, self._crop, self._seed = batch, frames, crop, seed

    def __call__(self, step: int) -> Losses:
        """Losses of step ``step``: mean absolute error, and what it is made of."""
        rng = np.random.default_rng((self._seed, step))
        video = pixels(np.stack([self._draw(rng) for _ in range(self._batch)])).to(self._vae.device)
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        z = self._vae.encode(video)
        noisy = z + NOISE * torch.randn(z.shape, generator=generator).to(z.device)
        error = (self._vae.decode(noisy, clamp=False) - video).abs()
        # Blocks and fingers cover little of the picture, so what is saturated or dark counts more.
        saturation = video.amax(1, keepdim=True) - video.amin(1, keepdim=True)
        reconstruction = (error * (1.0 + 4.0 * saturation)).mean()
        loss = reconstruction + SHRINK * z.square().mean()
        return {"loss": loss, "error": error.detach().mean(), "latent": z.detach().std()}

    def _draw(self, rng: np.random.Generator) -> Array:
        frames = self._episodes[int(rng.integers(len(self._episodes)))].frames
        start = int(rng.integers(len(frames) - self._frames + 1))
        clip = frames[start : start + self._frames]
        if not self._crop:
            return np.asarray(clip)
        height, width = clip.shape[1:3]
        stride = self._vae.config.spatial_stride
        y = stride * int(rng.integers((height - self._crop) // stride + 1))
        x = stride * int(rng.integers((width - self._crop) // stride + 1))
        return np.asarray(clip[:, y : y + self._crop, x : x + self._crop])


@torch.no_grad()
def latent_statistics(
    vae: VideoVae, episodes: Sequence[Episode], clips: int = 64, frames: int = 9, seed: int = 0
) -> VaeConfig:
    """The VAE's configuration with mean and deviation of its latents measured, per channel."""
    loss = ClipLoss(vae, episodes, batch=1, frames=frames, crop=0, seed=seed)
    rng = np.random.default_rng((seed, 1))
    config = vae.config
    mean = torch.tensor(config.latents_mean).view(1, -1, 1, 1, 1)
    std = torch.tensor(config.latents_std).view(1, -1, 1, 1, 1)
    clips_seen = (pixels(loss._draw(rng)[None]).to(vae.device) for _ in range(clips))
    found = torch.cat([vae.encode(clip).cpu() * std + mean for clip in clips_seen])
    axes = (0, 2, 3, 4)
    return replace(
        config,
        latents_mean=tuple(round(float(x), 5) for x in found.mean(axes)),
        latents_std=tuple(round(float(x), 5) for x in found.std(axes)),
    )
