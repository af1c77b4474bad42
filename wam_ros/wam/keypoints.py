"""The small model's image encoder: where in the picture is what the instruction names?

It stands where the large models have their CLIP tower and gives the transformer a few image tokens.
Each of ``points`` queries, formed from the instruction, looks for its place in the picture with a
spatial softmax (Levine et al. 2016, "End-to-end training of deep visuomotor policies"), and its
token says where that is and what is seen there. One more token sums all of them up.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wam_ros.wam.config import KeypointConfig
from wam_ros.wam.keymaps import keypoints as keymap
from wam_ros.wam.stored import StoredNetwork


class KeypointEncoder(StoredNetwork):
    """Image tokens [B, points + 1, dim] of a composite and the instruction's embedding."""

    grounded = True
    """The head hands such an encoder the prompt's embedding as well."""

    def __init__(self, config: KeypointConfig) -> None:
        super().__init__(keymap.entries(config))
        self.config = config
        self.net = KeypointNet(config).eval()

    def encode(self, frames: Tensor, text: Tensor) -> Tensor:
        """Tokens of frames [B, 3, H, W] in [-1, 1] and prompt embeddings [B, L, text_dim]."""
        tokens: Tensor = self.net(frames.to(self.dtype), text.to(self.dtype))
        return tokens

    def look(self, frames: Tensor, text: Tensor) -> Tensor:
        """Where queries look in each view: x (right), y (down) in [-1, 1], [B, points, V, 2]."""
        return self.net.places(frames.to(self.dtype), text.to(self.dtype)).place


class Looks(NamedTuple):
    """Where P queries look in V views of ``cells`` (rows, columns), and what they see there."""

    scores: Tensor
    """Before the softmax, [B, P, V, rows * columns]."""
    place: Tensor
    """x (right), y (down) in [-1, 1], [B, P, V, 2]."""
    spread: Tensor
    """Standard deviation of the place, [B, P, V, 2]."""
    features: Tensor
    """[B, P, V, F]"""
    asked: Tensor
    """What each query read in the prompt, [B, P, text_dim]."""
    cells: tuple[int, int]


class KeypointNet(nn.Module):
    """The network itself; see the module's text.

    The composite's views lie in a grid of ``tiles``. A query looks for its place in every view by
    itself: over the whole composite it would end up between the views that show the same block.
    """

    def __init__(self, config: KeypointConfig) -> None:
        super().__init__()
        c, f = config, config.features
        self.config = c
        self.conv1 = nn.Conv2d(3, f, 3, stride=_POOL, padding=1)
        self.conv2 = nn.Conv2d(f, f, 3, padding=1)
        self.conv3 = nn.Conv2d(f, f, 3, padding=2, dilation=2)
        self.scale = nn.Parameter(torch.tensor([3.0]))
        self.ask = nn.Linear(c.text_dim, c.points)
        self.usual = nn.Parameter(torch.zeros(c.points, c.text_dim))
        self.contrast = nn.Parameter(torch.ones(c.points, c.text_dim))
        self.query = nn.Sequential(
            nn.Linear(c.points * c.text_dim, c.hidden),
            nn.GELU(),
            nn.Linear(c.hidden, c.points * (f + 3)),
        )
        seen = c.tiles[0] * c.tiles[1] * (f + 3 + 4 * c.waves + 2)
        self.token = nn.Sequential(nn.Linear(seen, c.hidden), nn.GELU(), nn.Linear(c.hidden, c.dim))
        self.kind = nn.Parameter(0.02 * torch.randn(c.points, c.dim))
        everything = c.points * (c.dim + c.text_dim)
        self.summary = nn.Sequential(
            nn.Linear(everything, 2 * c.hidden),
            nn.GELU(),
            nn.Linear(2 * c.hidden, c.hidden),
            nn.GELU(),
            nn.Linear(c.hidden, c.dim),
        )

    def asked(self, text: Tensor) -> Tensor:
        """What each query reads in the prompt [B, L, text_dim]: [B, points, text_dim]."""
        # Padding comes as rows of zeros.
        padding = text.abs().amax(-1, keepdim=True) == 0
        weights = self.ask(text).masked_fill(padding, -1e4).softmax(dim=1)
        return (weights.transpose(1, 2) @ text - self.usual) * self.contrast

    @torch.no_grad()
    def calibrate(self, text: Tensor) -> None:
        """Set out from what prompts [B, L, text_dim] have in common.

        Most of a prompt is its template. Without this the few words that differ would be one part
        in a hundred of what a query reads, and take a hundred times as long to be noticed.
        """
        self.usual.zero_()
        self.contrast.fill_(1.0)
        found = self.asked(text)
        self.usual.copy_(found.mean(0))
        self.contrast.copy_(1.0 / found.std(0, correction=0).clamp_min(1e-4))

    def places(self, frames: Tensor, text: Tensor) -> Looks:
        """Where every query looks in every view, and what it sees there.

        Raises
        ------
        ValueError
            If the frames do not divide into the views.
        """
        rows, columns = self.config.tiles
        if frames.shape[-2] % (_SIDE * rows) or frames.shape[-1] % (_SIDE * columns):
            raise ValueError(
                f"frames of {frames.shape[-2]}x{frames.shape[-1]} are no {rows}x{columns} views "
                f"with sides that {_SIDE} divides"
            )
        small = F.avg_pool2d(frames, _POOL)
        x = F.gelu(self.conv1(frames))
        # What is around a cell is looked at from twice as far, which costs a quarter.
        around = F.avg_pool2d(x, 2)
        around = F.gelu(around + self.conv2(around))
        around = F.gelu(around + self.conv3(around))
        x = x + F.interpolate(around, scale_factor=2.0)
        # What is colourful goes along as it is: a query can look for a colour from the start, and
        # grey and wood, which most of the picture is, draw nobody's look.
        colours = _COLOUR_GAIN * (small - small.mean(1, keepdim=True))
        keys = torch.cat((x, colours), dim=1)
        asked = self.asked(text)
        query = self.query(asked.flatten(1)).unflatten(1, (self.config.points, -1))
        # In training under bfloat16 a position would be known to a pixel only.
        with torch.autocast(frames.device.type, enabled=False):
            return self._find(query.float(), keys.float(), asked)

    def _find(self, query: Tensor, keys: Tensor, asked: Tensor) -> Looks:
        rows, columns = self.config.tiles
        height, width = keys.shape[-2] // rows, keys.shape[-1] // columns
        tiles = keys.unflatten(-2, (rows, height)).unflatten(-1, (columns, width))
        tiles = tiles.permute(0, 2, 4, 1, 3, 5).flatten(1, 2).flatten(3)  # [B, V, F, cells]
        scores = F.normalize(query, dim=-1)[:, None] @ tiles * self.scale.float().exp()
        weights = scores.softmax(dim=-1)
        where = _grid(height, width, keys)
        place = weights @ where
        spread = (weights @ where.square() - place.square()).clamp_min(0.0).add(1e-6).sqrt()
        features = weights @ tiles.transpose(-1, -2)
        scores, place, spread, features = (
            x.transpose(1, 2) for x in (scores, place, spread, features)
        )
        return Looks(scores, place, spread, features, asked, (height, width))

    def tokens(self, looks: Looks) -> Tensor:
        """See `KeypointEncoder.encode`."""
        waves = _waves(looks.place, self.config.waves)
        seen = torch.cat((looks.features, waves, looks.spread), dim=-1)
        tokens = self.token(seen.flatten(2).to(self.kind.dtype)) + self.kind
        together = torch.cat((tokens.flatten(1), looks.asked.flatten(1)), dim=1)
        return torch.cat((tokens, self.summary(together)[:, None]), dim=1)

    def forward(self, frames: Tensor, text: Tensor) -> Tensor:
        """See `KeypointEncoder.encode`."""
        return self.tokens(self.places(frames, text))


_POOL = 2
"""Pixels per cell and axis."""
_SIDE = 2 * _POOL
_COLOUR_GAIN = 3.0


def _grid(rows: int, columns: int, like: Tensor) -> Tensor:
    """Centres of the cells, row by row: x and y in [-1, 1], [rows * columns, 2]."""
    y = (torch.arange(rows, device=like.device) + 0.5) / rows * 2 - 1
    x = (torch.arange(columns, device=like.device) + 0.5) / columns * 2 - 1
    return torch.stack((x.repeat(rows), y.repeat_interleave(columns)), dim=-1)


def _waves(place: Tensor, count: int) -> Tensor:
    """Sines and cosines of ``place`` [..., 2] at 1, 2, 4 ... half turns: [..., 4 * count]."""
    steps = math.pi / 2 * 2.0 ** torch.arange(count, device=place.device)
    angles = (place[..., None] * steps.to(place.dtype)).flatten(-2)
    return torch.cat((angles.sin(), angles.cos()), dim=-1)
