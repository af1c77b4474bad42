"""Rotary position embedding: three axes for video tokens, one axis for action and state tokens.

Channels 2j and 2j+1 of a head form a complex number that is turned by position x frequency. A video
token is placed at (latent frame, row, column); the head's channel pairs are shared out over these
axes. Action and state tokens use tables of their own over the full head (Su et al. 2021; Wan 2.1).

Two ways to turn: ``complex128`` is what DreamZero does in PyTorch; ``real32`` uses real float32
tables, half the traffic of the complex numbers' float32 and no float64 arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

_THETA = 10000.0


def axis_dims(head_dim: int) -> tuple[int, int, int]:
    """Channels of a head given to time, rows and columns; they sum to ``head_dim``."""
    side = 2 * (head_dim // 6)
    return head_dim - 2 * side, side, side


def _angles(positions: torch.Tensor, dim: int) -> torch.Tensor:
    """Angles [len(positions), dim/2], float64."""
    powers = torch.arange(0, dim, 2, dtype=torch.float64, device=positions.device) / dim
    return torch.outer(positions.double(), _THETA**-powers)


def video_angles(
    frames: int, rows: int, columns: int, head_dim: int, start_frame: int = 0
) -> torch.Tensor:
    """Angles of ``frames`` x ``rows`` x ``columns`` tokens, in that order: [tokens, head_dim/2]."""
    t, h, w = axis_dims(head_dim)
    shape = (frames, rows, columns, -1)
    along_t = _angles(torch.arange(start_frame, start_frame + frames), t)
    along_h = _angles(torch.arange(rows), h)
    along_w = _angles(torch.arange(columns), w)
    parts = (
        along_t[:, None, None].expand(shape),
        along_h[None, :, None].expand(shape),
        along_w[None, None, :].expand(shape),
    )
    return torch.cat(parts, dim=-1).reshape(frames * rows * columns, head_dim // 2)


def line_angles(start: int, count: int, head_dim: int) -> torch.Tensor:
    """Angles of ``count`` action or state tokens from position ``start``: [count, head_dim/2]."""
    return _angles(torch.arange(start, start + count), head_dim)


@dataclass(frozen=True)
class Rotation:
    """Cosine and sine of every token's angles, [tokens, 1, head_dim/2].

    float64 for the reference path, float32 for real tables.
    """

    cos: torch.Tensor
    sin: torch.Tensor

    @staticmethod
    def of(angles: torch.Tensor, dtype: torch.dtype, device: torch.device | str) -> Rotation:
        """Tables for ``angles`` [tokens, head_dim/2]; cos and sin are taken in float64."""
        cos, sin = angles.cos()[:, None], angles.sin()[:, None]
        return Rotation(cos.to(device, dtype), sin.to(device, dtype))

    def turn(self, x: torch.Tensor) -> torch.Tensor:
        """Turn ``x`` [B, tokens, heads, head_dim]; computed in the tables' precision.

        The result is of that precision too; the caller casts it.
        """
        pairs = x.to(self.cos.dtype).unflatten(-1, (-1, 2))
        even, odd = pairs[..., 0], pairs[..., 1]
        turned = (even * self.cos - odd * self.sin, even * self.sin + odd * self.cos)
        return torch.stack(turned, dim=-1).flatten(-2)


class RotationTables:
    """Builds and remembers the tables of the forwards, which only differ by their start frame.

    Parameters
    ----------
    head_dim
        Channels of an attention head.
    real
        float32 tables instead of float64.
    """

    def __init__(self, head_dim: int, real: bool = False) -> None:
        self._head_dim = head_dim
        self.dtype = torch.float32 if real else torch.float64
        self._known: dict[tuple[object, ...], Rotation] = {}

    def video(self, size: tuple[int, int, int], start_frame: int, device: torch.device) -> Rotation:
        """Tables of a forward with video tokens only; ``size`` in frames, rows, columns."""
        key = ("video", size, start_frame, device)
        if key not in self._known:
            angles = video_angles(*size, self._head_dim, start_frame)
            self._known[key] = Rotation.of(angles, self.dtype, device)
        return self._known[key]

    def block(
        self,
        size: tuple[int, int, int],
        start_frame: int,
        actions: tuple[int, int],
        states: tuple[int, int],
        device: torch.device,
    ) -> Rotation:
        """Tables of video, action and state tokens; the latter given as (start, count)."""
        key = ("block", size, start_frame, actions, states, device)
        if key not in self._known:
            parts = (
                video_angles(*size, self._head_dim, start_frame),
                line_angles(*actions, self._head_dim),
                line_angles(*states, self._head_dim),
            )
            self._known[key] = Rotation.of(torch.cat(parts), self.dtype, device)
        return self._known[key]
