"""Clips, staged encoding and the first frame's conditioning."""

from __future__ import annotations

import pytest
import torch

from wam_ros.wam.conditioning import (
    StagedClip,
    WindowConditioning,
    clip_schedule,
    observed_latents,
    reference_frame,
    to_video,
)
from wam_ros.wam.presets import tiny
from wam_ros.wam.vae import VideoVae

from .conftest import random_networks


@pytest.fixture(scope="module")
def vae() -> VideoVae:
    return random_networks(tiny()).vae


def test_clip_of_a_block() -> None:
    assert clip_schedule(4, 2) == (0, 0, 0, 1, 1, 2, 2, 3, 3)
    assert clip_schedule(8, 2) == (0, 0, 1, 2, 3, 4, 5, 6, 7)
    assert clip_schedule(9, 2) == tuple(range(9))
    assert clip_schedule(4, 1) == (0, 0, 1, 2, 3)
    for frames in (2, 3, 13):
        with pytest.raises(ValueError, match=f"{frames} frames cannot continue"):
            clip_schedule(frames, 2)


@pytest.mark.parametrize("frames", [4, 5, 8, 9, 11])
def test_staged_clip_equals_encoding_at_once(vae: VideoVae, frames: int) -> None:
    torch.manual_seed(frames)
    video = torch.rand(1, 3, frames, 32, 48) * 2 - 1
    clip = StagedClip(vae, frames, 2)
    with torch.no_grad():
        for i in range(frames):
            assert not clip.complete
            clip.push(video[:, :, i : i + 1])
        torch.testing.assert_close(clip.latents(), observed_latents(vae, video, 2))
    with pytest.raises(RuntimeError, match="have come already"):
        clip.push(video[:, :, :1])


def test_staged_clip_says_what_is_missing(vae: VideoVae) -> None:
    clip = StagedClip(vae, 4, 2)
    with pytest.raises(RuntimeError, match="0 of 4"):
        clip.latents()


@torch.no_grad()
def test_lazy_conditioning_equals_encoding_at_once(vae: VideoVae) -> None:
    torch.manual_seed(0)
    frame = torch.rand(1, 3, 1, 32, 48) * 2 - 1
    plain = WindowConditioning(vae, frame, 5, concat=True, lazy=False)
    lazy = WindowConditioning(vae, frame, 5, concat=True, lazy=True)
    assert (plain.pending, lazy.pending) == (0, 4)
    torch.testing.assert_close(lazy.first_latent, plain.first_latent)
    torch.testing.assert_close(lazy.y(1, 2), plain.y(1, 2))
    assert lazy.pending == 2
    lazy.finish()
    assert lazy.pending == 1
    # Beyond the end the last frames serve.
    torch.testing.assert_close(lazy.y(7, 2), plain.y(3, 2))
    mask = plain.y(0, 5)[:, :4]
    assert mask[:, :, 0].eq(1).all() and mask[:, :, 1:].eq(0).all()


@torch.no_grad()
def test_model_without_concat_needs_one_latent(vae: VideoVae) -> None:
    lazy = WindowConditioning(vae, torch.zeros(1, 3, 1, 32, 48), 5, concat=False, lazy=True)
    assert lazy.y(1, 2) is None
    assert lazy.pending == 0


def test_reference_frame_is_the_newest_of_four_or_nine() -> None:
    video = torch.arange(9.0).reshape(1, 1, 9, 1, 1).expand(1, 3, 9, 1, 1)
    newest = {1: 0, 4: 3, 8: 0, 9: 8}
    for frames, expected in newest.items():
        assert float(reference_frame(video[:, :, :frames])[0, 0]) == expected


def test_video_is_centred_and_checked() -> None:
    images = torch.tensor([0, 255], dtype=torch.uint8).reshape(1, 2, 1, 1, 1)
    images = images.expand(1, 2, 16, 16, 3)
    video = to_video(images, (16, 16), torch.float32, "cpu")
    assert video[:, :, 0].eq(-1).all() and video[:, :, 1].eq(1).all()
    assert to_video(images, (8, 32), torch.float32, "cpu", resize=True).shape == (1, 3, 2, 8, 32)
    with pytest.raises(ValueError, match="16x16, the model takes 8x8"):
        to_video(images, (8, 8), torch.float32, "cpu")
    with pytest.raises(ValueError, match="expected uint8"):
        to_video(images.float(), (16, 16), torch.float32, "cpu")
