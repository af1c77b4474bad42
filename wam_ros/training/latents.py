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
    vae: VideoVae,
    episode: Episode,
    per_block: int,
    alone: bool,
    phase: int = 0,
    bf16: bool = False,
) -> Latents:
    """Encode an episode whose windows open at frames ``phase``, ``phase + 4``, ...

    With ``alone`` every block is a clip of its own that begins with the block's opening frame, as
    a policy call encodes what it was fed (`HeadConfig.blocks_alone`). Otherwise they come from one
    stream over the episode, as the released models' came from one over their window. The causal
    encoder remembers what was before, so the two differ. With a small VAE that was trained on short
    clips the first latents of a block lay further apart than either is long: a transformer trained
    on the stream's imagined what neither the decoder nor the next call could use.

    With ``bf16`` convolutions are in bfloat16, twice as fast on processors that have it; latents of
    the small VAE then differ by 0.6 % of their mean size.
    """
    video = pixels(episode.frames[phase:]).to(vae.device, vae.dtype)
    opening = video[:, ::FRAMES_PER_LATENT].transpose(0, 1)[:, :, None]
    with torch.autocast(vae.device.type, torch.bfloat16, enabled=bf16):
        single = torch.cat([vae.encode(part)[:, :, 0] for part in opening.split(_CLIPS)])
        blocks = (_alone if alone else _streamed)(vae, video, per_block)
        if not len(blocks):
            blocks = single.new_zeros(0, single.shape[1], per_block, *single.shape[2:])
    return Latents(phase, _half(single), _half(blocks.transpose(1, 2)))


def _alone(vae: VideoVae, video: torch.Tensor, per_block: int) -> torch.Tensor:
    """Latents [G', z, K, h, w] of every block's own clip in ``video`` [3, T, H, W]."""
    clip = 1 + FRAMES_PER_LATENT * per_block
    starts = range(0, video.shape[1] - clip + 1, FRAMES_PER_LATENT)
    clips = [video[:, s : s + clip] for s in starts]
    parts = [torch.stack(clips[i : i + _CLIPS]) for i in range(0, len(clips), _CLIPS)]
    return torch.cat([vae.encode(p)[:, :, 1:] for p in parts]) if parts else video.new_zeros(0)


def _streamed(vae: VideoVae, video: torch.Tensor, per_block: int) -> torch.Tensor:
    """The same from one stream over all of ``video``."""
    groups = (video.shape[1] - 1) // FRAMES_PER_LATENT
    if groups < per_block:
        return video.new_zeros(0)
    stream = vae.encode(video[None, :, : 1 + FRAMES_PER_LATENT * groups])[0, :, 1:]
    return stream.unfold(1, per_block, 1).permute(1, 0, 4, 2, 3)


def _half(x: torch.Tensor) -> Array:
    return np.asarray(x.float().cpu().numpy().astype(np.float16))


def encode_all(
    vae: VideoVae,
    episodes: Sequence[Episode],
    per_block: int,
    alone: bool,
    seed: int = 0,
    cache: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    bf16: bool = False,
) -> list[Latents]:
    """Encode all episodes, each from a random one of the four phases.

    Latents are kept below ``cache``, in a folder named after the VAE's weights, and used again.
    """
    kind = f"{'blocks' if alone else 'stream'}{per_block}"
    folder = None if cache is None else cache / f"{kind}_{_fingerprint(vae)}"
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
        out.append(_cached(file, partial(encode, vae, episode, per_block, alone, start, bf16)))
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
