"""From composites to what the transformer is conditioned on.

* the first frame of a window: CLIP features, and the latents of that frame followed by grey frames;
* what was seen since the last call: the clip the VAE encodes, and its staged encoding.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
import torch.nn.functional as F

_FRAMES_PER_LATENT = 4
_MASK_CHANNELS = 4


class Stream(Protocol):
    """A clip being encoded as its frames arrive (`vae.VaeStream`)."""

    def push(self, frames: torch.Tensor) -> torch.Tensor:
        """Add frames [B, 3, n, H, W]; returns the latents [B, z, m, h, w] they complete."""


class Vae(Protocol):
    """The video VAE (`vae.VideoVae`)."""

    def encode(self, video: torch.Tensor) -> torch.Tensor:
        """Latents [B, z, T', h, w] of [B, 3, T, H, W] in [-1, 1]."""

    def stream(self) -> Stream:
        """Start a clip."""

    def decode_parts(self, latents: torch.Tensor) -> Iterator[torch.Tensor]:
        """Video of latents [B, z, T', h, w]: [B, 3, 1, H, W], then [B, 3, 4, H, W] of each."""


def check_images(images: torch.Tensor, size: tuple[int, int] | None) -> None:
    """Raise ValueError unless ``images`` are uint8 [B, T, H, W, 3], T > 0, of ``size`` if given."""
    shape = tuple(images.shape)
    if images.dtype != torch.uint8 or images.ndim != 5 or shape[-1] != 3 or 0 in shape:
        raise ValueError(f"images are {images.dtype} {shape}, expected uint8 [B, T, H, W, 3]")
    if size is not None and shape[2:4] != tuple(size):
        raise ValueError(
            f"images are {shape[2]}x{shape[3]}, the model takes {size[0]}x{size[1]}; "
            "compose the views at the checkpoint's size"
        )


def to_video(
    images: torch.Tensor,
    size: tuple[int, int],
    dtype: torch.dtype,
    device: torch.device | str,
    resize: bool = False,
) -> torch.Tensor:
    """Turn composites uint8 [B, T, H, W, 3] into video [B, 3, T, *size] in [-1, 1].

    Values are rounded to ``dtype`` before they are centred, as in the reference.

    Raises
    ------
    ValueError
        For another type or rank, or another size unless ``resize`` (bilinear, no antialias).
    """
    check_images(images, None if resize else size)
    video = (images.to(device).float() / 255).to(dtype)
    video = ((video - 0.5) / 0.5).permute(0, 4, 1, 2, 3)
    if tuple(video.shape[-2:]) == tuple(size):
        return video
    batch = video.shape[0]
    flat = video.transpose(1, 2).flatten(0, 1)
    flat = F.interpolate(flat, size=size, mode="bilinear", align_corners=False)
    return flat.unflatten(0, (batch, -1)).transpose(1, 2)


def reference_frame(video: torch.Tensor) -> torch.Tensor:
    """The frame a window starts from, [B, 3, 1, H, W]: the last of 4 or 9, else the first."""
    return video[:, :, -1:] if video.shape[2] in (4, 9) else video[:, :, :1]


def clip_schedule(frames: int, per_block: int) -> tuple[int, ...]:
    """Indices of the frames that make up the clip to encode, given ``frames`` seen.

    The clip has 1 + 4 K frames: as they are when that many came, with the first repeated for 4 K,
    else each frame repeated to fill 4 K and the first once more.

    Raises
    ------
    ValueError
        Where the reference has no rule (2 or 3 frames, or far too many).
    """
    wanted = _FRAMES_PER_LATENT * per_block
    if (frames - 1) // _FRAMES_PER_LATENT == per_block:
        return tuple(range(wanted + 1))
    quads = frames // _FRAMES_PER_LATENT
    if quads == per_block:
        return (0, *range(wanted))
    repeat = per_block // quads if quads else 0
    if repeat == 0:
        raise ValueError(
            f"{frames} frames cannot continue a window of blocks of {per_block} latents; send 1 "
            f"(starts over), 4, {wanted} or {wanted + 1}"
        )
    repeated = [i for i in range(frames) for _ in range(repeat)]
    return (0, *repeated[:wanted])


def observed_latents(vae: Vae, video: torch.Tensor, per_block: int) -> torch.Tensor:
    """Latents [B, z, K, h, w] of the frames seen since the last call, [B, 3, T, H, W]."""
    index = list(clip_schedule(video.shape[2], per_block))
    return vae.encode(video[:, :, index])[:, :, -per_block:]


class StagedClip:
    """The same latents, encoded group by group while the frames arrive.

    Parameters
    ----------
    vae
        Its encoder is causal in time, so that a group never waits for a later one.
    frames
        How many frames the call will be given.
    per_block
        Latent frames K of a block.
    """

    def __init__(self, vae: Vae, frames: int, per_block: int) -> None:
        self._schedule = clip_schedule(frames, per_block)
        self._frames, self._per_block = frames, per_block
        self._stream = vae.stream()
        self._seen = 0
        self._latents: list[torch.Tensor] = []

    @property
    def complete(self) -> bool:
        """Whether all frames have come."""
        return self._seen == self._frames

    def push(self, frame: torch.Tensor) -> None:
        """Add the next frame [B, 3, 1, H, W]; raises RuntimeError when all have come."""
        if self.complete:
            raise RuntimeError(f"all {self._frames} frames of this clip have come already")
        copies = self._schedule.count(self._seen)
        self._seen += 1
        if copies:
            latents = self._stream.push(frame.expand(-1, -1, copies, -1, -1))
            if latents.shape[2]:
                self._latents.append(latents)

    def latents(self) -> torch.Tensor:
        """The block's latents [B, z, K, h, w]; raises RuntimeError while frames are missing."""
        if not self.complete:
            raise RuntimeError(f"{self._seen} of {self._frames} frames have come so far")
        return torch.cat(self._latents, dim=2)[:, :, -self._per_block :]


class WindowConditioning:
    """Latents of the window's first frame followed by grey, with the mask channels before them.

    Parameters
    ----------
    frame
        The reference frame, [B, 3, 1, H, W].
    latents
        Latent frames in all.
    concat
        Whether the model is given them; one without needs the first latent only.
    lazy
        Encode on demand. The encoder is causal in time, so a later grey frame changes nothing
        before it.
    """

    def __init__(
        self, vae: Vae, frame: torch.Tensor, latents: int, concat: bool, lazy: bool
    ) -> None:
        self._total, self._concat = latents, concat
        self._frame = frame
        self._known = 0
        self._ys: torch.Tensor | None = None
        self._stream: Stream | None = None
        if lazy:
            self._stream = vae.stream()
            self._keep(self._stream.push(frame))
        else:
            grey = torch.zeros_like(frame).expand(
                -1, -1, _FRAMES_PER_LATENT * (latents - 1), -1, -1
            )
            self._keep(vae.encode(torch.cat((frame, grey), dim=2)))

    def _keep(self, latents: torch.Tensor) -> None:
        b, z, count, h, w = latents.shape
        if self._ys is None:
            self._ys = latents.new_zeros(b, _MASK_CHANNELS + z, self._total, h, w)
            self._ys[:, :_MASK_CHANNELS, 0] = 1
        self._ys[:, _MASK_CHANNELS:, self._known : self._known + count] = latents
        self._known += count

    def _encode_to(self, latents: int) -> None:
        missing = latents - self._known
        if missing > 0:
            assert self._stream is not None
            grey = torch.zeros_like(self._frame)
            grey = grey.expand(-1, -1, _FRAMES_PER_LATENT * missing, -1, -1)
            self._keep(self._stream.push(grey))

    @property
    def first_latent(self) -> torch.Tensor:
        """Latent of the reference frame, [B, z, 1, h, w]."""
        assert self._ys is not None
        return self._ys[:, _MASK_CHANNELS:, :1]

    @property
    def pending(self) -> int:
        """Latent frames not encoded yet that a later call may ask for."""
        return self._total - self._known if self._concat else 0

    def finish(self, latents: int = 1) -> None:
        """Encode ``latents`` of the pending frames, in idle time."""
        self._encode_to(self._known + min(latents, self.pending))

    def y(self, start: int, count: int) -> torch.Tensor | None:
        """Conditioning [B, 4 + z, count, h, w] of the latent frames from ``start``.

        Beyond the end the last ``count`` serve. None for a model without.
        """
        if not self._concat:
            return None
        end = min(start + count, self._total)
        self._encode_to(end)
        assert self._ys is not None
        return self._ys[:, :, end - count : end]
