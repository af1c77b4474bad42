"""From episodes and frozen encoders to the windows that the transformer trains on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from wam_ros.training.autoencoder import pixels
from wam_ros.training.episodes import Array, Episode, Numbers
from wam_ros.training.grounding import embed
from wam_ros.training.latents import Latents, encode_all
from wam_ros.training.trainer import Losses, Say
from wam_ros.training.windows import RELEASED, Choice, Windows
from wam_ros.wam import prompts
from wam_ros.wam.checkpoint.load import Networks
from wam_ros.wam.config import WamConfig
from wam_ros.wam.vae import FRAMES_PER_LATENT

_Loss = TypeVar("_Loss")
_AT_ONCE = 64  # frames in one forward of the image encoder


def split_off(
    episodes: Sequence[Episode], share: float, seed: int
) -> tuple[list[Episode], list[Episode]]:
    """Episodes to train on, and a random ``share`` of them to measure on only."""
    count = round(share * len(episodes))
    held = set(np.random.default_rng(seed).permutation(len(episodes))[:count].tolist())
    return (
        [e for i, e in enumerate(episodes) if i not in held],
        [e for i, e in enumerate(episodes) if i in held],
    )


@torch.no_grad()
def make_windows(
    networks: Networks,
    config: WamConfig,
    episodes: Sequence[Episode],
    numbers: Numbers,
    tokenize: Callable[[str], tuple[torch.Tensor, torch.Tensor]],
    tag: str,
    seed: int,
    cache: Path | None = None,
    choice: Choice = RELEASED,
    bf16: bool = False,
) -> Windows:
    """Encode pictures and instructions of all episodes.

    Parameters
    ----------
    tokenize
        A prompt, template included, to ids and mask [1, L].
    cache
        Folder where latents are kept for another run.
    choice
        Which windows are drawn.
    bf16
        See `latents.encode`.
    """
    c = config.dit
    alone = config.head.blocks_alone
    latents = encode_all(
        networks.vae, episodes, c.num_frame_per_block, alone, seed, cache, bf16=bf16
    )
    text = {
        said: embed(networks.text, *tokenize(prompts.prompt(said, tag)))[0].float().cpu().numpy()
        for said in sorted({t for e in episodes for t in e.text})
    }
    image = [_image_tokens(networks, e, z, text) for e, z in zip(episodes, latents, strict=True)]
    return Windows(
        episodes,
        latents,
        numbers,
        text,
        image,
        c.num_action_per_block,
        c.num_frame_per_block,
        c.max_chunk_size,
        choice,
    )


def _image_tokens(networks: Networks, e: Episode, z: Latents, text: dict[str, Array]) -> Array:
    """Image tokens of every opening frame, each with the instruction of its row."""
    from wam_ros.wam.clip import ImageEncoder

    index = [z.phase + FRAMES_PER_LATENT * g for g in range(len(z.single))]
    frames = pixels(np.asarray(e.frames)[index][:, None])[:, :, 0].to(networks.image.device)
    if isinstance(networks.image, ImageEncoder):
        found = [networks.image.encode(f) for f in frames.split(_AT_ONCE)]
        return torch.cat(found).float().cpu().numpy()
    said = [e.text[min(i * e.stride, len(e.text) - 1)] for i in index]
    prompt = torch.from_numpy(np.stack([text[t] for t in said])).to(frames.device)
    parts = [
        networks.image.encode(f, p)
        for f, p in zip(frames.split(_AT_ONCE), prompt.split(_AT_ONCE), strict=True)
    ]
    return torch.cat(parts).float().cpu().numpy()


def measurable(stage: str, make: Callable[[], _Loss], say: Say) -> _Loss | None:
    """A loss over the held-out part, or None, said, where that cannot be had."""
    try:
        return make()
    except ValueError as err:
        say(f"{stage}: nothing held out to measure on ({err})")
        return None


def with_held_out(
    loss: Callable[[int], Losses], held: Callable[[int], Losses] | None, every: int = 25
) -> Callable[[int], Losses]:
    """Adds the loss on held-out episodes, measured now and then, under ``held_out``."""
    if held is None:
        return loss
    last: dict[str, torch.Tensor] = {}

    def both(step: int) -> Losses:
        if step % every == 0 or not last:
            with torch.no_grad():
                last["held_out"] = held(step)["loss"]
        return {**loss(step), **last}

    return both
