"""The VAE as frames arrive, against the same clip encoded at once by diffusers itself."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wam_ros.wam.config import VaeConfig
from wam_ros.wam.parity.result import relative_l2
from wam_ros.wam.presets import tiny
from wam_ros.wam.vae import VideoVae
from wam_ros.wam.vae_on_cpu import planar_on_cpu


def _vae(kind: str) -> VideoVae:
    torch.manual_seed(3)
    z = 4
    config = tiny(kind=kind).vae
    mean, std = tuple(torch.randn(z).tolist()), tuple((torch.rand(z) + 0.5).tolist())
    config = VaeConfig(kind, config.base_dim, 12, z, latents_mean=mean, latents_std=std)
    return VideoVae(config).requires_grad_(False)


VAES = {kind: _vae(kind) for kind in ("wan2.1", "wan2.2")}


def _clip(vae: VideoVae, frames: int, seed: int = 0, batch: int = 1) -> torch.Tensor:
    stride = vae.config.spatial_stride
    generator = torch.Generator().manual_seed(seed)
    return torch.rand((batch, 3, frames, stride, 2 * stride), generator=generator) * 2 - 1


@pytest.mark.parametrize("kind", VAES)
def test_encode_is_the_normalised_posterior_mean_of_diffusers(kind: str) -> None:
    vae = VAES[kind]
    video = _clip(vae, 9)
    mu = vae.net.encode(video).latent_dist.mode()
    mean = torch.tensor(vae.config.latents_mean).view(1, -1, 1, 1, 1)
    std = torch.tensor(vae.config.latents_std).view(1, -1, 1, 1, 1)
    assert relative_l2(vae.encode(video), (mu - mean) / std) < 1e-6


@pytest.mark.parametrize("kind", VAES)
def test_decode_undoes_the_scaling_of_encode(kind: str) -> None:
    vae = VAES[kind]
    video = _clip(vae, 5)
    expected = vae.net.decode(vae.net.encode(video).latent_dist.mode()).sample
    assert relative_l2(vae.decode(vae.encode(video)), expected) < 1e-5


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("kind", VAES)
def test_convolutions_in_the_plane_equal_those_of_diffusers(kind: str, batch: int) -> None:
    from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d

    ours, theirs = VAES[kind], _vae(kind)
    changed = [m for m in theirs.net.modules() if type(m).__name__ == "Planar"]
    assert len(changed) > 10
    for module in changed:
        module.__class__ = WanCausalConv3d
    for frames in (1, 5, 9):
        video = _clip(ours, frames, frames, batch)
        latents = theirs.encode(video)
        assert relative_l2(ours.encode(video), latents) < 1e-5
        assert relative_l2(ours.decode(latents), theirs.decode(latents)) < 1e-5


@pytest.mark.parametrize("known", [0, 1, 2])
def test_planes_have_the_gradients_of_the_convolution(known: int) -> None:
    from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d

    torch.manual_seed(known)
    theirs = WanCausalConv3d(3, 5, (3, 3, 3), stride=(1, 2, 2), padding=1).double()
    ours = torch.nn.Sequential(copy.deepcopy(theirs))
    planar_on_cpu(ours)
    assert type(ours[0]).__name__ == "Planar"
    x = torch.randn(2, 3, 4, 6, 8, dtype=torch.float64)
    past = torch.randn(2, 3, known, 6, 8, dtype=torch.float64) if known else None
    results = []
    for conv in (theirs, ours[0]):
        out = conv(x, past)
        out.square().sum().backward()
        results.append((out, conv.weight.grad, conv.bias.grad))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


@settings(max_examples=20, deadline=None)
@given(
    kind=st.sampled_from(sorted(VAES)),
    pieces=st.lists(st.integers(1, 6), min_size=1, max_size=5),
    batch=st.integers(1, 2),
)
def test_any_split_of_a_clip_gives_the_same_latents(
    kind: str, pieces: list[int], batch: int
) -> None:
    vae = VAES[kind]
    video = _clip(vae, sum(pieces), batch=batch)
    stream = vae.stream()
    got, seen = [], 0
    for part in video.split(pieces, dim=2):
        got.append(stream.push(part))
        seen += part.shape[2]
        # As early as possible: one latent after the first frame, one more after every fourth.
        assert sum(g.shape[2] for g in got) == 1 + (seen - 1) // 4
        assert stream.waiting == (seen - 1) % 4
    assert relative_l2(torch.cat(got, dim=2), vae.encode(video)) < 1e-6


def test_a_fork_leaves_the_original_alone() -> None:
    vae = VAES["wan2.1"]
    video, other = _clip(vae, 9), _clip(vae, 4, seed=1)
    stream = vae.stream()
    stream.push(video[:, :, :5])
    twin = stream.fork()
    twin.push(other)
    assert torch.equal(stream.push(video[:, :, 5:]), vae.encode(video)[:, :, 2:])


def test_latents_depend_on_the_past_only() -> None:
    vae = VAES["wan2.1"]
    video = _clip(vae, 9)
    changed = video.clone()
    changed[:, :, 5:] = 0.0
    before, after = vae.encode(video), vae.encode(changed)
    assert torch.equal(before[:, :, :2], after[:, :, :2])
    assert not torch.equal(before[:, :, 2], after[:, :, 2])


def test_frames_that_do_not_fit_are_named() -> None:
    vae = VAES["wan2.2"]
    with pytest.raises(ValueError, match=r"multiples of 16"):
        vae.encode(torch.zeros(1, 3, 1, 24, 32))
    stream = vae.stream()
    stream.push(_clip(vae, 2))
    with pytest.raises(ValueError, match=r"do not continue a clip of 1x16x32"):
        stream.push(torch.zeros(1, 3, 1, 32, 32))


def test_published_statistics_are_only_taken_for_published_sizes() -> None:
    with pytest.raises(ValueError, match="z_dim = 5"):
        VaeConfig(z_dim=5)
