"""What the transformer is trained on is what a call would have encoded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from wam_ros.training.autoencoder import pixels
from wam_ros.training.episodes import Episode
from wam_ros.training.latents import Latents, encode, encode_all
from wam_ros.wam.checkpoint.load import fresh
from wam_ros.wam.conditioning import observed_latents
from wam_ros.wam.presets import tiny
from wam_ros.wam.vae import VideoVae

PER_BLOCK = 2


@pytest.fixture(scope="module")
def vae() -> VideoVae:
    torch.manual_seed(0)
    return fresh(tiny(kind="wan2.2", dim=32)).vae


def _episode(frames: int, seed: int = 0) -> Episode:
    rng = np.random.default_rng(seed)
    pictures = rng.integers(0, 256, (frames, 32, 32, 3), dtype=np.uint8)
    rows = np.zeros((3 * frames, 1))
    return Episode(pictures, rows, rows, ("a",) * (3 * frames))


@pytest.mark.parametrize("phase", [0, 3])
@pytest.mark.parametrize("bf16", [False, True])
def test_a_block_is_encoded_as_a_call_encodes_it(vae: VideoVae, phase: int, bf16: bool) -> None:
    episode = _episode(50)
    found = encode(vae, episode, PER_BLOCK, True, phase, bf16)
    openings = 1 + (50 - phase - 1) // 4
    assert len(found.single) == openings
    assert len(found.block) == openings - PER_BLOCK
    for g in (0, 4, 9):
        start = phase + 4 * g
        video = pixels(episode.frames[start : start + 1 + 4 * PER_BLOCK])[None]
        with torch.no_grad():
            opening = vae.encode(video[:, :, :1])[0, :, 0]
            seen = observed_latents(vae, video, PER_BLOCK)[0].transpose(0, 1)
        rounding = 0.05 if bf16 else 2e-3  # kept in half precision
        for ours, call in ((found.single[g], opening), (found.block[g], seen)):
            away = np.linalg.norm(ours.astype(np.float32) - call.numpy())
            assert away < rounding * float(call.norm())


def test_released_models_blocks_come_from_one_stream(vae: VideoVae) -> None:
    episode = _episode(50)
    alone, found = (encode(vae, episode, PER_BLOCK, a) for a in (True, False))
    assert found.block.shape == alone.block.shape
    assert np.array_equal(found.single, alone.single)
    with torch.no_grad():
        stream = vae.encode(pixels(episode.frames[:49])[None])[0].transpose(0, 1).numpy()
    for g in (0, 5, 10):
        np.testing.assert_allclose(found.block[g], stream[g + 1 : g + 3], atol=2e-3)
    assert np.allclose(found.block[0], alone.block[0], atol=2e-3), "the same clip"
    assert np.linalg.norm(stream[6] - alone.block[5][0]) > 0.05 * np.linalg.norm(stream[6])


def test_a_window_joins_its_opening_frame_and_its_blocks() -> None:
    single = np.arange(8.0)[:, None, None, None]
    block = 10 * np.arange(1, 8.0)[:, None] + np.arange(2.0)
    latents = Latents(0, single, block[:, :, None, None, None])
    assert latents.window(1, 2).ravel().tolist() == [1, 20, 21, 40, 41]
    assert latents.window(1, 2).shape == (1, 5, 1, 1)


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("frames", [1, 5, 8])
def test_an_episode_without_a_block_has_none(vae: VideoVae, frames: int, alone: bool) -> None:
    found = encode(vae, _episode(frames), PER_BLOCK, alone)
    assert found.block.shape[:2] == (0, PER_BLOCK)
    assert found.block.shape[2:] == found.single.shape[1:]


def test_latents_are_kept_for_another_run(vae: VideoVae, tmp_path: Path) -> None:
    episodes = [_episode(20, seed) for seed in range(2)]
    first = encode_all(vae, episodes, PER_BLOCK, True, cache=tmp_path)
    blank = [Episode(np.zeros_like(e.frames), e.state, e.action, e.text) for e in episodes]
    for a, b in zip(first, encode_all(vae, blank, PER_BLOCK, True, cache=tmp_path), strict=True):
        assert np.array_equal(a.block, b.block)
        assert np.array_equal(a.single, b.single)
        assert a.phase == b.phase
    other = encode_all(
        vae, blank, 1, True, cache=tmp_path
    )  # of another length: not the same latents
    assert other[0].block.shape[1] == 1
