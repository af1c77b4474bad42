"""Second stage: text and image encoder learn which place in the picture an instruction means.

There are no labels of positions. What an episode ends in is the label (hindsight): from one frame,
the state and the instruction, the state at the end of that instruction's rows is to be predicted.
The readout on top is thrown away; the encoders' tokens are what the transformer is given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wam_ros.training.autoencoder import pixels
from wam_ros.training.episodes import Array, Episode, Numbers
from wam_ros.training.trainer import Losses
from wam_ros.wam.keypoints import KeypointEncoder
from wam_ros.wam.text import TextEncoder

Tokens = tuple[Tensor, Tensor]


class Readout(nn.Module):
    """From summary token and state to the state at the end, relative to now."""

    def __init__(self, dim: int, state: int, hidden: int = 256) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(dim + state, hidden), nn.GELU(), nn.Linear(hidden, state)
        )

    def forward(self, summary: Tensor, state: Tensor) -> Tensor:
        """Map [B, dim] and [B, state] to [B, state]."""
        out: Tensor = state + self.net(torch.cat((summary, state), dim=-1))
        return out


def settled(state: Array, rows: int = 6, tolerance: float = 0.1) -> bool:
    """Whether the last ``rows`` of normalised states [T, width] stand still.

    An instruction that was cut short ends in a state that says nothing about it.
    """
    return len(state) >= rows and float(np.ptp(state[-rows:], axis=0).max()) < tolerance


class HindsightLoss:
    """Error of the predicted end of an instruction.

    Parameters
    ----------
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
        drop: float = 0.1,
        unknown: int = 2,
        spare: frozenset[int] = frozenset(),
    ) -> None:
        self._text, self._image, self._readout = text, image, readout
        self._episodes, self._tokenize = episodes, tokenize
        self._states = [numbers.state(e.state) for e in episodes]
        self._batch, self._seed = batch, seed
        self._drop, self._unknown, self._spare = drop, unknown, spare
        self._known: dict[str, Tokens] = {}
        self._moments = [
            (i, frame, stop - 1)
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
        frames, texts, now, end = self.draw(rng, self._batch)
        predicted = self.predict(frames, texts, now, rng)
        target = torch.from_numpy(end).to(predicted.device)
        loss = F.smooth_l1_loss(predicted, target, beta=0.05)
        error = (predicted - target).abs().detach()
        return {"loss": loss, "error": error.mean(), "worst": error.amax(1).mean()}

    def calibrate(self) -> None:
        """Fit the image encoder's reading to the instructions there are; before training."""
        texts = sorted({t for e in self._episodes for t in e.text})
        tokens = [self._tokens(t, None) for t in texts]
        with torch.no_grad():
            embedded = embed(
                self._text, torch.cat([t[0] for t in tokens]), torch.cat([t[1] for t in tokens])
            )
        self._image.net.calibrate(embedded)

    def draw(self, rng: np.random.Generator, count: int) -> tuple[Array, list[str], Array, Array]:
        """Frames, instructions, states now and at the end of ``count`` random moments."""
        frames, texts, now, end = [], [], [], []
        for k in rng.integers(len(self._moments), size=count):
            i, frame, last = self._moments[int(k)]
            e = self._episodes[i]
            frames.append(e.frames[frame])
            texts.append(e.text[frame * e.stride])
            now.append(self._states[i][frame * e.stride])
            end.append(self._states[i][last])
        return np.stack(frames), texts, np.stack(now), np.stack(end)

    def predict(
        self, frames: Array, texts: list[str], now: Array, rng: np.random.Generator | None = None
    ) -> Tensor:
        """Normalised state at the end, [B, width]; words are dropped where ``rng`` is given."""
        tokens = [self._tokens(t, rng) for t in texts]
        ids = torch.cat([t[0] for t in tokens])
        mask = torch.cat([t[1] for t in tokens])
        embedded = embed(self._text, ids, mask)
        video = pixels(frames[:, None])[:, :, 0].to(embedded.device)
        image = self._image.encode(video, embedded)
        predicted: Tensor = self._readout(image[:, -1], torch.from_numpy(now).to(image.device))
        return predicted

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


def embed(text: TextEncoder, ids: Tensor, mask: Tensor) -> Tensor:
    """Prompt embeddings [B, L, dim] with each row's own padding zeroed.

    `TextEncoder` cuts a batch at its shortest row, as the reference does.
    """
    ids, mask = ids.to(text.device), mask.to(text.device)
    hidden = text.net(input_ids=ids, attention_mask=mask).last_hidden_state
    return hidden * mask[..., None].to(hidden.dtype)
