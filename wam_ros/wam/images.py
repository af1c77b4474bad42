"""One camera's frames: crop, resize and quantise as the release does in evaluation."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

CROP = 0.95
"""Share of height and width that the centre crop keeps."""


def prepare_view(
    frames: Tensor,
    size: tuple[int, int],
    resolution: tuple[int, int] | None = None,
    name: str = "view",
) -> Tensor:
    """Crop the centre and resize.

    Parameters
    ----------
    frames
        uint8 [T, H, W, 3], RGB.
    size
        (height, width) of one view in the composite; (176, 320) for the 14B model.
    resolution
        (width, height) that the checkpoint was trained with (``metadata.json``); checked if given.
    name
        Camera name for the error.

    Returns
    -------
    Tensor
        uint8 [T, height, width, 3]. Bilinear with antialias, and truncated, not rounded.

    Raises
    ------
    ValueError
        If the frames are not uint8 [T, H, W, 3] or not of the checkpoint's resolution.
    """
    if frames.dtype != torch.uint8 or frames.dim() != 4 or frames.shape[-1] != 3:
        raise ValueError(
            f"{name}: frames are {frames.dtype} {tuple(frames.shape)}, expected uint8 [T, H, W, 3]"
        )
    rows, columns = int(frames.shape[1]), int(frames.shape[2])
    if resolution is not None and (columns, rows) != tuple(resolution):
        raise ValueError(
            f"{name}: frames are {columns}x{rows}, the checkpoint was trained on "
            f"{resolution[0]}x{resolution[1]} (width x height); resize them to that"
        )
    x = frames.permute(0, 3, 1, 2).float() / 255
    x = center_crop(x, int(CROP * rows), int(CROP * columns))
    x = F.interpolate(x, size=size, mode="bilinear", align_corners=False, antialias=True)
    return (x * 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def center_crop(x: Tensor, height: int, width: int) -> Tensor:
    """Centre of x [..., H, W]; an odd margin is split by rounding half to even."""
    top = round((x.shape[-2] - height) / 2)
    left = round((x.shape[-1] - width) / 2)
    return x[..., top : top + height, left : left + width]
