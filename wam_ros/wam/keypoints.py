"""The small model's image encoder: where in the picture is what the instruction names?

It stands where the large models have their CLIP tower and gives the transformer a few image tokens.
Each of ``points`` queries, formed from the instruction, looks for its place in the picture with a
spatial softmax (Levine et al. 2016, "End-to-end training of deep visuomotor policies"), and its
token says where that is and what is seen there. One more token sums all of them up.
"""

from __future__ import annotations

import math

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
        """Where the queries look: x (right) and y (down) in [-1, 1], [B, points, 2]."""
        place: Tensor = self.net.places(frames.to(self.dtype), text.to(self.dtype))[0]
        return place


class KeypointNet(nn.Module):
    """The network itself; see the module's text."""

    def __init__(self, config: KeypointConfig) -> None:
        super().__init__()
        c, f = config, config.features
        self.config = c
        self.conv1 = nn.Conv2d(3, f // 2, 5, stride=2, padding=2)
        self.conv2 = nn.Conv2d(f // 2, f, 3, stride=2, padding=1)
        self.conv3 = nn.Conv2d(f, f, 3, padding=2, dilation=2)
        self.values = nn.Conv2d(f + 3, f, 1)
        self.scale = nn.Parameter(torch.tensor([2.5]))
        self.ask = nn.Linear(c.text_dim, c.points)
        self.usual = nn.Parameter(torch.zeros(c.points, c.text_dim))
        self.contrast = nn.Parameter(torch.ones(c.points, c.text_dim))
        self.query = nn.Sequential(
            nn.Linear(c.points * c.text_dim, c.hidden),
            nn.GELU(),
            nn.Linear(c.hidden, c.points * (f + 3)),
        )
        seen = f + 4 * c.waves + 2
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

    def places(self, frames: Tensor, text: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Positions [B, P, 2], spreads [B, P, 2], features [B, P, F], and `asked`."""
        x = F.gelu(self.conv1(frames))
        x = F.gelu(self.conv2(x))
        x = F.gelu(x + self.conv3(x))
        where = _grid(x.shape[-2], x.shape[-1], frames)
        asked = self.asked(text)
        query = self.query(asked.flatten(1)).unflatten(1, (self.config.points, -1))
        # What is colourful goes along as it is: a query can look for a colour from the start, and
        # grey and wood, which most of the picture is, draw nobody's look.
        colours = F.avg_pool2d(frames, 4)
        colours = _COLOUR_GAIN * (colours - colours.mean(1, keepdim=True))
        keys = torch.cat((x, colours), dim=1)
        values = self.values(keys)
        # In training under bfloat16 a position would be known to a pixel only.
        with torch.autocast(frames.device.type, enabled=False):
            found = self._find(
                query.float(), keys.flatten(2).float(), values.flatten(2).float(), where
            )
            return (*found, asked)

    def _find(
        self, query: Tensor, keys: Tensor, values: Tensor, where: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        scores = F.normalize(query, dim=-1) @ keys
        weights = (scores * self.scale.exp()).softmax(dim=-1)
        place = weights @ where
        spread = (weights @ where.square() - place.square()).clamp_min(0.0).add(1e-6).sqrt()
        features = weights @ values.transpose(1, 2)
        return place, spread, features

    def forward(self, frames: Tensor, text: Tensor) -> Tensor:
        """See `KeypointEncoder.encode`."""
        place, spread, features, asked = self.places(frames, text)
        seen = torch.cat((features, _waves(place, self.config.waves), spread), dim=-1)
        tokens = self.token(seen.to(self.kind.dtype)) + self.kind
        together = torch.cat((tokens.flatten(1), asked.flatten(1)), dim=1)
        return torch.cat((tokens, self.summary(together)[:, None]), dim=1)


_COLOUR_GAIN = 3.0


def _grid(rows: int, columns: int, like: Tensor) -> Tensor:
    """Centres of the cells, row by row: x and y in [-1, 1], [rows * columns, 2]."""
    y = (torch.arange(rows, device=like.device) + 0.5) / rows * 2 - 1
    x = (torch.arange(columns, device=like.device) + 0.5) / columns * 2 - 1
    grid = torch.stack((x.repeat(rows), y.repeat_interleave(columns)), dim=-1)
    return grid


def _waves(place: Tensor, count: int) -> Tensor:
    """Sines and cosines of ``place`` [..., 2] at 1, 2, 4 ... half turns: [..., 4 * count]."""
    steps = math.pi / 2 * 2.0 ** torch.arange(count, device=place.device)
    angles = (place[..., None] * steps.to(place.dtype)).flatten(-2)
    return torch.cat((angles.sin(), angles.cos()), dim=-1)
