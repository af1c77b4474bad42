"""Several cameras in one picture, the way the model was trained to look at them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from wam_ros.wam.embodiments import embodiment
from wam_ros.wam.images import prepare_view

TILES = (0, 2, 1)
"""Tile of view 0, 1, 2 in a composite of 2 x 2, counted row by row; DROID's lies otherwise."""


def compose(views: Sequence[Tensor], tag: str) -> Tensor:
    """Put prepared views [T, h, w, C] together.

    DROID with three views: view 2 (wrist) across the top with every column doubled, view 0 bottom
    left, view 1 bottom right. Everything else with more than one view: view 0 top left, view 1
    bottom left, view 2 top right, the rest black. A single view stays as it is.

    Returns
    -------
    Tensor
        [T, 2 h, 2 w, C], or the view itself.

    Raises
    ------
    ValueError
        If there are no views, more than three, or of different shapes.
    """
    if not 1 <= len(views) <= 3:
        raise ValueError(f"{len(views)} views; the model takes one to three")
    shapes = {tuple(v.shape) for v in views}
    if len(shapes) > 1:
        raise ValueError(f"views differ in shape: {sorted(shapes)}")
    if len(views) == 1:
        return views[0]
    t, h, w, c = views[0].shape
    canvas = torch.zeros((t, 2 * h, 2 * w, c), dtype=views[0].dtype, device=views[0].device)
    if embodiment(tag).layout == "wrist_on_top" and len(views) == 3:
        canvas[:, :h] = views[2].repeat_interleave(2, dim=2)
        canvas[:, h:, :w] = views[0]
        canvas[:, h:, w:] = views[1]
        return canvas
    for view, tile in zip(views, TILES):
        row, column = tile // 2 * h, tile % 2 * w
        canvas[:, row : row + h, column : column + w] = view
    return canvas


def composite(
    cameras: Mapping[str, Tensor],
    tag: str,
    size: tuple[int, int],
    resolution: tuple[int, int] | None = None,
    order: Sequence[str] | None = None,
) -> Tensor:
    """From raw camera frames to the picture the model sees.

    Parameters
    ----------
    cameras
        Camera name -> uint8 [T, H, W, 3], in any order.
    tag
        Embodiment tag.
    size
        (height, width) of the composite.
    resolution
        (width, height) the checkpoint expects of every camera.
    order
        Names of view 0, 1, 2; the embodiment's own by default.

    Returns
    -------
    Tensor
        uint8 [T, height, width, 3].

    Raises
    ------
    ValueError
        If a camera is missing or too many, or its frames do not fit.
    """
    order = order or embodiment(tag).cameras
    if set(cameras) != set(order):
        raise ValueError(
            f"cameras given: {', '.join(cameras) or 'none'}; "
            f"the model's view of '{tag}' takes {', '.join(order) or 'none that are known'}"
        )
    factor = 2 if len(order) > 1 else 1
    each = (size[0] // factor, size[1] // factor)
    return compose([prepare_view(cameras[n], each, resolution, n) for n in order], tag)
