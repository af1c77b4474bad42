"""Episodes as latents: what the transformer is trained on, encoded once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from wam_ros.training.autoencoder import pixels
from wam_ros.training.episodes import Array, Episode
from wam_ros.wam.vae import FRAMES_PER_LATENT, VideoVae


@dataclass(frozen=True)
class Latents:
    """Latents of an episode from frame ``phase`` on.

    Attributes
    ----------
    single
        Frame ``phase + 4 g`` encoded by itself, float16 [G + 1, z, h, w]: what opens a window.
    group
        Latent of the four frames before that one, float16 [G + 1, z, h, w]; entry 0 is not used.
    """

    phase: int
    single: Array
    group: Array

    def window(self, g: int, latents: int) -> Array:
        """``1 + latents`` latents from frame ``phase + 4 g``, float32 [z, 1 + latents, h, w]."""
        parts = (self.single[g : g + 1], self.group[g + 1 : g + 1 + latents])
        return np.concatenate(parts).astype(np.float32).swapaxes(0, 1)


@torch.no_grad()
def encode(vae: VideoVae, episode: Episode, phase: int = 0, bf16: bool = False) -> Latents:
    """Encode an episode whose windows open at frames ``phase``, ``phase + 4``, ...

    The groups come from one stream over the episode. A policy call encodes its clip from scratch
    instead; the encoder is causal, so the difference is what it remembers from before the clip.
    With ``bf16`` convolutions are in bfloat16, twice as fast on processors that have it; latents of
    the small VAE then differ by 0.6 % of their mean size.
    """
    video = pixels(episode.frames[phase:])[None].to(vae.device, vae.dtype)
    groups = (video.shape[2] - 1) // FRAMES_PER_LATENT
    with torch.autocast(vae.device.type, torch.bfloat16, enabled=bf16):
        stream = vae.encode(video[:, :, : 1 + FRAMES_PER_LATENT * groups])[0]
        opening = video[0, :, ::FRAMES_PER_LATENT][:, : groups + 1]
        single = vae.encode(opening.transpose(0, 1)[:, :, None])[:, :, 0]
    return Latents(
        phase,
        single.float().cpu().numpy().astype(np.float16),
        stream.transpose(0, 1).float().cpu().numpy().astype(np.float16),
    )


def encode_all(
    vae: VideoVae,
    episodes: Sequence[Episode],
    seed: int = 0,
    cache: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    bf16: bool = False,
) -> list[Latents]:
    """Encode all episodes, each from a random one of the four phases.

    Latents are kept below ``cache``, in a folder named after the VAE's weights, and used again.
    """
    folder = None if cache is None else cache / f"latents_{_fingerprint(vae)}"
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    phases = rng.integers(FRAMES_PER_LATENT, size=len(episodes))
    out = []
    for i, (episode, phase) in enumerate(zip(episodes, phases)):
        # Too short an episode keeps the frames it has.
        spare = len(episode.frames) - 1 - FRAMES_PER_LATENT
        start = int(min(phase, max(spare, 0)))
        file = None if folder is None else folder / f"{seed}_{len(episodes)}_{i:06d}.npz"
        out.append(_cached(file, partial(encode, vae, episode, start, bf16)))
        if progress:
            progress(i + 1, len(episodes))
    return out


def _cached(file: Path | None, make: Callable[[], Latents]) -> Latents:
    if file is None:
        return make()
    if file.is_file():
        with np.load(file) as kept:
            return Latents(int(kept["phase"]), kept["single"], kept["group"])
    found = make()
    part = file.with_suffix(".part.npz")
    np.savez(part, phase=found.phase, single=found.single, group=found.group)
    part.replace(file)
    return found


def _fingerprint(vae: VideoVae) -> str:
    digest = hashlib.sha256(repr(vae.config).encode())
    for tensor in vae.stored_state().values():
        digest.update(tensor.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()[:12]
