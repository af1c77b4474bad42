"""What a call imagined: its frames with their times, and how it compares with what came.

A block of K latents describes 4 K frames, spread evenly over the rows of a chunk: frame i is
expected at row (i + 1) H / 4 K, as in training. Imagination and observation are compared at those
rows only, however the block was cut short for the model.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch

from wam_ros.wam.call import CallResult
from wam_ros.wam.conditioning import clip_schedule
from wam_ros.wam.head import PolicyHead

_FRAMES_PER_LATENT = 4


def rows_of_frames(horizon: int, per_block: int) -> tuple[float, ...]:
    """Rows at which the 4 K frames of a block are expected."""
    count = _FRAMES_PER_LATENT * per_block
    return tuple(horizon * (i + 1) / count for i in range(count))


def frames(
    head: PolicyHead, result: CallResult, opening: torch.Tensor
) -> Iterator[tuple[float, torch.Tensor]]:
    """Decode what a call imagined, one latent after another.

    Parameters
    ----------
    opening
        Composite of row 0, uint8 [1, 1, H, W, 3]. A model whose blocks were encoded alone imagines
        what follows this frame; another one, what follows the latents it was fed.

    Yields
    ------
    (row, frame)
        The row of the chunk at which the frame is expected, and uint8 [H, W, 3] on the CPU. None
        at all when the call's video was not wanted.
    """
    if result.video is None:
        return
    horizon, per_block = head.config.head.action_horizon, head.dit.config.num_frame_per_block
    rows = iter(rows_of_frames(horizon, per_block))
    before = result.observed
    if head.config.head.blocks_alone and not result.reset:
        with torch.no_grad():
            before = head.vae.encode(head.prepare(opening))
    for part in head.decode_parts(result.video, before):
        pixels = ((part[0].float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        for frame in pixels.permute(1, 2, 3, 0).cpu():
            yield next(rows), frame


def surprise(imagined: torch.Tensor, observed: torch.Tensor) -> float:
    """``||imagined - observed|| / ||observed||`` over normalised latents of the same frames."""
    a, b = imagined.float(), observed.float()
    return float((a - b).norm() / b.norm().clamp_min(1e-12))


@dataclass
class Judgement:
    """An imagined block and the frames that were then seen at the times of its first latents.

    Attributes
    ----------
    imagined
        [1, z, n, h, w], the n latents that were seen whole.
    images
        What was seen, uint8 [1, 1 + 4 n, H, W, 3]: the frame at row 0, then those at the latents'
        own times.
    observed
        Their latents, where a call has encoded these frames already.
    """

    imagined: torch.Tensor
    images: torch.Tensor
    observed: torch.Tensor | None = None
    _value: float | None = field(default=None, repr=False)

    def value(self, head: PolicyHead) -> float:
        """The surprise; encodes the frames if no call has. Safe beside a running call."""
        if self._value is None:
            n, observed = self.imagined.shape[2], self.observed
            if observed is None:
                with torch.no_grad():
                    observed = head.vae.encode(head.prepare(self.images))[:, :, -n:]
            self._value = surprise(self.imagined, observed)
        return self._value


def judge(
    imagined: torch.Tensor,
    horizon: int,
    images: Sequence[torch.Tensor],
    rows: Sequence[float],
    fed: Sequence[float] = (),
    latents: torch.Tensor | None = None,
) -> Judgement | None:
    """Pair an imagined block with what was seen at the same times.

    Parameters
    ----------
    imagined
        [1, z, K, h, w].
    images, rows
        Frames uint8 [1, 1, H, W, 3] and the rows of the chunk at which they were seen, ascending.
    fed, latents
        Rows of the frames that the following call was fed, and their latents [1, z, K, h, w]: used
        instead of encoding again where those frames lie at the imagined times.

    Returns
    -------
    Judgement or None
        None where not even the first latent was seen whole: a frame counts for a time when it is
        at most half a video stride (at least half a row) away.
    """
    per_block = imagined.shape[2]
    wanted = rows_of_frames(horizon, per_block)
    near = max(0.5, 0.5 * wanted[0]) + 1e-6
    picked: list[int] = []
    for row in (0.0, *wanted):
        best = min(range(len(rows)), key=lambda i: round(abs(rows[i] - row), 6), default=-1)
        if best < 0 or abs(rows[best] - row) > near:
            break
        picked.append(best)
    whole = (len(picked) - 1) // _FRAMES_PER_LATENT if picked else 0
    if whole < 1:
        return None
    clip = torch.cat([images[i] for i in picked[: 1 + whole * _FRAMES_PER_LATENT]], dim=1)
    if latents is not None and len(fed) > 1:
        schedule = clip_schedule(len(fed), per_block)[1:]
        if all(abs(fed[i] - row) <= near for i, row in zip(schedule, wanted)):
            return Judgement(imagined, clip, latents)
    return Judgement(imagined[:, :, :whole], clip)


def undefined(result: CallResult | None, final_noise: float) -> bool:
    """Whether a call imagined nothing that could be compared."""
    return result is None or result.video is None or final_noise > 0.0 or math.isnan(final_noise)
