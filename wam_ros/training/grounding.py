"""Second stage: text and image encoder learn which place in the picture an instruction means.

Nobody labels positions. What an episode ends in is the label (hindsight): from one frame and the
instruction, the state at the end of that instruction's rows is to be predicted, and where the
contract tells how the cameras see, the first query is to look at the place where the hand came to
rest (`pointing`). The readout on top is thrown away; the encoders' tokens are what the transformer
is given.

The readout knows the state in which the instruction began, not the present one: a hand that rests
has nearly always arrived, and an encoder that is told its state repeats it instead of looking.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wam_ros.training.autoencoder import pixels
from wam_ros.training.episodes import Array, Episode, Numbers, settled
from wam_ros.training.trainer import Losses
from wam_ros.wam.keypoints import KeypointEncoder, Looks
from wam_ros.wam.text import TextEncoder

Tokens = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Moments:
    """Random moments: composites [B, H, W, 3], instructions, normalised states [B, width] in which
    these began and ended, and where the end is seen in each view [B, V, 2] (NaN: it is not)."""

    frames: Array
    texts: list[str]
    begin: Array
    end: Array
    places: Array


class Readout(nn.Module):
    """From summary token and the state at the beginning to the state at the end."""

    def __init__(self, dim: int, state: int, hidden: int = 256) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(dim + state, hidden), nn.GELU(), nn.Linear(hidden, state)
        )

    def forward(self, summary: Tensor, state: Tensor) -> Tensor:
        """Map [B, dim] and [B, state] to [B, state]."""
        out: Tensor = state + self.net(torch.cat((summary, state), dim=-1))
        return out


class HindsightLoss:
    """Error of the predicted end of an instruction.

    Parameters
    ----------
    places
        Per episode, where every frame shows the end of its instruction, [frames, V, 2]
        (`pointing.Pointing.places`); none where that is not known.
    tokenize
        Instruction to ids and mask [1, L].
    drop
        Share of words that become the token ``unknown``, so that a word never met before is nothing
        new. The tokens in ``spare`` always stay.
    """

    def __init__(
        self,
        text: TextEncoder,
        image: KeypointEncoder,
        readout: Readout,
        episodes: Sequence[Episode],
        numbers: Numbers,
        tokenize: Callable[[str], Tokens],
        batch: int = 64,
        seed: int = 0,
        places: Sequence[Array] | None = None,
        drop: float = 0.1,
        unknown: int = 2,
        spare: frozenset[int] = frozenset(),
    ) -> None:
        self._text, self._image, self._readout = text, image, readout
        self._episodes, self._tokenize = episodes, tokenize
        self._states = [numbers.state(e.state) for e in episodes]
        self._batch, self._seed = batch, seed
        self._drop, self._unknown, self._spare = drop, unknown, spare
        self._places = places
        self._known: dict[str, Tokens] = {}
        self._variants: dict[str, Tensor] = {}
        self._moments = [
            (i, frame, start, stop - 1)
            for i, e in enumerate(episodes)
            for start, stop in e.segments()
            if settled(self._states[i][start:stop])
            for frame in range(-(-start // e.stride), -(-stop // e.stride))
        ]
        if not self._moments:
            raise ValueError("no instruction of the dataset was carried out until the arm rested")

    def __call__(self, step: int) -> Losses:
        """Losses of step ``step``."""
        rng = np.random.default_rng((self._seed, step))
        moments = self.draw(rng, self._batch)
        predicted, looks = self.predict(moments, rng)
        target = torch.from_numpy(moments.end).to(predicted.device)
        loss = F.smooth_l1_loss(predicted, target, beta=0.05)
        error = (predicted - target).abs().detach()
        found = {"loss": loss, "error": error.mean(), "worst": error.amax(1).mean()}
        if self._places is not None:
            where = torch.from_numpy(moments.places).to(predicted.device)
            found["pointing"] = pointing_loss(looks, where)
            found["loss"] = loss + POINTING_WEIGHT * found["pointing"]
        return found

    def calibrate(self) -> None:
        """Fit the image encoder's reading to the instructions there are; before training."""
        texts = sorted({t for e in self._episodes for t in e.text})
        tokens = [self._tokens(t, None) for t in texts]
        with torch.no_grad():
            embedded = embed(
                self._text, torch.cat([t[0] for t in tokens]), torch.cat([t[1] for t in tokens])
            )
        self._image.net.calibrate(embedded)

    def draw(self, rng: np.random.Generator, count: int) -> Moments:
        """``count`` random moments of instructions that were carried out."""
        chosen = [self._moments[int(k)] for k in rng.integers(len(self._moments), size=count)]
        of = self._episodes
        places = self._places
        return Moments(
            np.stack([of[i].frames[frame] for i, frame, _, _ in chosen]),
            [of[i].text[frame * of[i].stride] for i, frame, _, _ in chosen],
            np.stack([self._states[i][start] for i, _, start, _ in chosen]),
            np.stack([self._states[i][last] for i, _, _, last in chosen]),
            np.stack([places[i][frame] for i, frame, _, _ in chosen])
            if places is not None
            else np.full((count, 4, 2), np.nan, np.float32),
        )

    def predict(
        self, moments: Moments, rng: np.random.Generator | None = None
    ) -> tuple[Tensor, Looks]:
        """Normalised states at the end [B, width], and where the queries looked.

        Words are dropped where ``rng`` is given.
        """
        embedded = self._embedded(moments.texts, rng)
        video = pixels(moments.frames[:, None])[:, :, 0].to(embedded.device)
        net, dtype = self._image.net, self._image.dtype
        looks = net.places(video.to(dtype), embedded.to(dtype))
        summary = net.tokens(looks)[:, -1]
        predicted: Tensor = self._readout(summary, torch.from_numpy(moments.begin).to(video.device))
        return predicted, looks

    def _embedded(self, texts: list[str], rng: np.random.Generator | None) -> Tensor:
        if self._variants:
            picks = rng.integers(VARIANTS, size=len(texts)) if rng is not None else [0] * len(texts)
            return torch.stack([self._variants[t][int(k)] for t, k in zip(texts, picks)])
        tokens = [self._tokens(t, rng) for t in texts]
        return embed(
            self._text, torch.cat([t[0] for t in tokens]), torch.cat([t[1] for t in tokens])
        )

    @torch.no_grad()
    def keep_text(self) -> None:
        """From now on take embeddings of the text encoder as it is, which is to be trained no more.

        Reading a prompt is more than half of a step. `VARIANTS` versions of each instruction are
        kept, the first one with all its words.
        """
        self._variants = {}
        rng = np.random.default_rng(self._seed)
        for text in sorted({t for e in self._episodes for t in e.text}):
            tokens = [self._tokens(text, None if k == 0 else rng) for k in range(VARIANTS)]
            self._variants[text] = embed(
                self._text, torch.cat([t[0] for t in tokens]), torch.cat([t[1] for t in tokens])
            )

    def _tokens(self, text: str, rng: np.random.Generator | None) -> Tokens:
        if text not in self._known:
            self._known[text] = self._tokenize(text)
        ids, mask = self._known[text]
        if rng is None or not self._drop:
            return ids, mask
        lost = torch.from_numpy(rng.random(ids.shape) < self._drop) & mask.bool()
        for word in self._spare:
            lost &= ids != word
        return ids.masked_fill(lost, self._unknown), mask


POINTING_WEIGHT = 0.02
VARIANTS = 12
"""Versions of an instruction, other words dropped in each, once the text encoder is done."""


def pointing_loss(looks: Looks, where: Tensor) -> Tensor:
    """Cross-entropy of the first query's look and the places ``where`` [B, V, 2], NaN for none.

    A place between the centres of cells belongs to the four of them by bilinear weights, so that
    the mean of the look is the place itself.
    """
    rows, columns = looks.cells
    size = torch.tensor([columns, rows], device=where.device)
    known = torch.isfinite(where).all(-1)
    if not known.any():
        return looks.scores.new_zeros(())
    chance = looks.scores[:, 0].log_softmax(-1)[known]  # [N, rows * columns]
    cell = (where[known] + 1) / 2 * size - 0.5
    cell = torch.minimum(cell.clamp_min(0.0), size - 1.0)
    low = torch.minimum(cell.floor(), size - 2.0)
    part = cell - low
    total = chance.new_zeros(len(chance))
    for dx in (0, 1):
        for dy in (0, 1):
            weight = (part[:, 0] if dx else 1 - part[:, 0]) * (part[:, 1] if dy else 1 - part[:, 1])
            at = (low[:, 1].long() + dy) * columns + low[:, 0].long() + dx
            total = total - weight * chance.gather(1, at[:, None])[:, 0]
    return total.mean()


def embed(text: TextEncoder, ids: Tensor, mask: Tensor) -> Tensor:
    """Prompt embeddings [B, L, dim] with each row's own padding zeroed.

    `TextEncoder` cuts a batch at its shortest row, as the reference does.
    """
    ids, mask = ids.to(text.device), mask.to(text.device)
    hidden = text.net(input_ids=ids, attention_mask=mask).last_hidden_state
    return hidden * mask[..., None].to(hidden.dtype)
