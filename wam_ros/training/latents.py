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

_CLIPS = 8  # encoded at once


@dataclass(frozen=True)
class Latents:
    """Latents of an episode from frame ``phase`` on.

    Attributes
    ----------
    single
        Frame ``phase + 4 g`` encoded by itself, float16 [G, z, h, w]: what opens a window.
    block
        The K latents of the 4 K frames after that one, float16 [G', K, z, h, w]; G' is smaller
        than G, because there have to be so many frames.
    """

    phase: int
    single: Array
    block: Array

    def window(self, g: int, blocks: int) -> Array:
        """``1 + K blocks`` latents from frame ``phase + 4 g``, float32 [z, 1 + K blocks, h, w]."""
        per_block = self.block.shape[1]
        starts = range(g, g + per_block * blocks, per_block)
        parts = (self.single[g : g + 1], *(self.block[s] for s in starts))
        return np.concatenate(parts).astype(np.float32).swapaxes(0, 1)


@torch.no_grad()
def encode(
    vae: VideoVae, episode: Episode, per_block: int, phase: int = 0, bf16: bool = False
) -> Latents:
    """Encode an episode whose windows open at frames ``phase``, ``phase + 4``, ...

    Every block of ``per_block`` latents is a clip of its own that begins with the block's opening
    frame, as a policy call encodes what it was fed. The causal encoder remembers what came before,
    so that latents taken from one stream over the episode are others: with the small VAE those of
    a block's first latent lie further apart than either is long, and a transformer trained on them
    imagines what neither the decoder nor the next call expects.

    With ``bf16`` convolutions are in bfloat16, twice as fast on processors that have it; latents of
    the small VAE then differ by 0.6 % of their mean size.
    """
    video = pixels(episode.frames[phase:]).to(vae.device, vae.dtype)
    clip = 1 + FRAMES_PER_LATENT * per_block
    opening = video[:, ::FRAMES_PER_LATENT].transpose(0, 1)[:, :, None]
    starts = range(0, video.shape[1] - clip + 1, FRAMES_PER_LATENT)
    blocks = [video[:, s : s + clip] for s in starts]
    with torch.autocast(vae.device.type, torch.bfloat16, enabled=bf16):
        single = torch.cat([vae.encode(part)[:, :, 0] for part in opening.split(_CLIPS)])
        found = [single.new_zeros(0, single.shape[1], per_block, *single.shape[2:])]
        for i in range(0, len(blocks), _CLIPS):
            found.append(vae.encode(torch.stack(blocks[i : i + _CLIPS]))[:, :, 1:])
    return Latents(phase, _half(single), _half(torch.cat(found).transpose(1, 2)))


def _half(x: torch.Tensor) -> Array:
    return np.asarray(x.float().cpu().numpy().astype(np.float16))


def encode_all(
    vae: VideoVae,
    episodes: Sequence[Episode],
    per_block: int,
    seed: int = 0,
    cache: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    bf16: bool = False,
) -> list[Latents]:
    """Encode all episodes, each from a random one of the four phases.

    Latents are kept below ``cache``, in a folder named after the VAE's weights, and used again.
    """
    folder = None if cache is None else cache / f"blocks{per_block}_{_fingerprint(vae)}"
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
        out.append(_cached(file, partial(encode, vae, episode, per_block, start, bf16)))
        if progress:
            progress(i + 1, len(episodes))
    return out


def _cached(file: Path | None, make: Callable[[], Latents]) -> Latents:
    if file is None:
        return make()
    if file.is_file():
        with np.load(file) as kept:
            return Latents(int(kept["phase"]), kept["single"], kept["block"])
    found = make()
    part = file.with_suffix(".part.npz")
    np.savez(part, phase=found.phase, single=found.single, block=found.block)
    part.replace(file)
    return found


def _fingerprint(vae: VideoVae) -> str:
    digest = hashlib.sha256(repr(vae.config).encode())
    for tensor in vae.stored_state().values():
        digest.update(tensor.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()[:12]
