"""Cropping, resizing and putting views together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wam_ros.wam.adapter import Adapter
from wam_ros.wam.checkpoint.metadata import read_metadata
from wam_ros.wam.embodiments import embodiment
from wam_ros.wam.images import center_crop, prepare_view
from wam_ros.wam.presets import preset
from wam_ros.wam.views import compose, composite


def _frames(rows: int, columns: int, seed: int = 0, count: int = 1) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(0, 256, (count, rows, columns, 3), dtype=np.uint8))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 3))
def test_every_view_is_found_again_in_the_grid(h: int, w: int, n: int) -> None:
    views = [_frames(h, w, seed=i) for i in range(n)]
    out = compose(views, "yam")
    if n == 1:
        assert out is views[0]
        return
    corners = [out[:, :h, :w], out[:, h:, :w], out[:, :h, w:], out[:, h:, w:]]
    for i, corner in enumerate(corners):
        assert torch.equal(corner, views[i] if i < n else torch.zeros_like(views[0]))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12))
def test_droid_has_the_wrist_doubled_on_top(h: int, w: int) -> None:
    views = [_frames(h, w, seed=i) for i in range(3)]
    out = compose(views, "oxe_droid")
    assert torch.equal(out[:, :h, ::2], views[2])
    assert torch.equal(out[:, :h, 1::2], views[2])
    assert torch.equal(out[:, h:, :w], views[0])
    assert torch.equal(out[:, h:, w:], views[1])


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 255), st.integers(20, 90), st.integers(20, 90))
def test_a_flat_picture_keeps_its_value(value: int, rows: int, columns: int) -> None:
    frames = torch.full((1, rows, columns, 3), value, dtype=torch.uint8)
    out = prepare_view(frames, (24, 40))
    # Truncation may lose one level where the float falls short of the integer.
    assert int((out.int() - value).abs().max()) <= 1


def test_smooth_pictures_agree_with_another_resizer() -> None:
    y, x = np.mgrid[0:180, 0:320]
    picture = np.stack([x * 0.7, y * 1.2, 128 + 60 * np.sin(x / 40)], -1).astype(np.uint8)
    ours = prepare_view(torch.from_numpy(picture)[None], (176, 320))[0].numpy()
    crop = picture[4 : 4 + 171, 8 : 8 + 304]
    theirs = cv2.resize(crop.astype(np.float32), (320, 176), interpolation=cv2.INTER_LINEAR)
    assert np.abs(ours.astype(float) - theirs).max() <= 1.5


def test_odd_margins_round_half_to_even() -> None:
    x = torch.arange(180.0).view(1, 1, 180, 1)
    assert center_crop(x, 171, 1)[0, 0, 0, 0] == 4  # 4.5 -> 4
    x = torch.arange(14.0).view(1, 1, 14, 1)
    assert center_crop(x, 3, 1)[0, 0, 0, 0] == 6  # 5.5 -> 6


def test_cameras_come_by_name_in_any_order() -> None:
    names = embodiment("agibot").cameras
    frames = {name: _frames(48, 64, seed=i) for i, name in enumerate(names)}
    out = composite(frames, "agibot", (32, 48))
    assert torch.equal(out, composite(dict(reversed(frames.items())), "agibot", (32, 48)))
    assert torch.equal(out[:, 16:, :24], prepare_view(frames["hand_left"], (16, 24)))


def test_what_does_not_fit_is_named() -> None:
    frames = {name: _frames(48, 64) for name in embodiment("agibot").cameras}
    del frames["top_head"]
    with pytest.raises(ValueError, match="takes top_head, hand_left, hand_right"):
        composite(frames, "agibot", (32, 48))
    with pytest.raises(ValueError, match=r"wrist: frames are 64x48, .* trained on 320x180"):
        prepare_view(_frames(48, 64), (16, 24), (320, 180), "wrist")
    with pytest.raises(ValueError, match="expected uint8"):
        prepare_view(torch.zeros(1, 8, 8, 3), (4, 4))
    with pytest.raises(ValueError, match="differ in shape"):
        compose([_frames(2, 2), _frames(2, 3)], "yam")


@pytest.mark.parametrize(
    ("name", "camera", "size"), [("14b", (180, 320), (352, 640)), ("5b", (160, 320), (320, 640))]
)
def test_released_sizes(
    name: str, camera: tuple[int, int], size: tuple[int, int], golden: Path
) -> None:
    metadata = read_metadata(golden / "metadata.json")["oxe_droid"]
    video = {k: replace(v, width=320, height=180) for k, v in metadata.video.items()}
    adapter = Adapter.of(preset(name), {"oxe_droid": replace(metadata, video=video)}, "oxe_droid")
    frames = {n: _frames(*camera, count=2) for n in adapter.cameras}
    assert adapter.composite(frames).shape == (2, *size, 3)
    wrong = {n: _frames(100, 320) for n in adapter.cameras}
    with pytest.raises(ValueError, match="the checkpoint was trained on 320x"):
        adapter.composite(wrong)
