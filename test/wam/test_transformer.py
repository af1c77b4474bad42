"""The transformer's parts by property: RoPE, mask, caches, time rows, fused projections."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wam_ros.wam.dit import CausalDiT
from wam_ros.wam.mask import training_mask
from wam_ros.wam.patches import patchify, unpatchify
from wam_ros.wam.presets import tiny
from wam_ros.wam.rope import Rotation, axis_dims, line_angles, video_angles


@given(half=st.integers(1, 80))
def test_axes_share_out_the_head(half: int) -> None:
    dims = axis_dims(2 * half)
    assert sum(dims) == 2 * half
    assert all(d % 2 == 0 for d in dims)


@given(shift=st.integers(0, 500), apart=st.integers(0, 60), seed=st.integers(0, 9))
@settings(max_examples=25, deadline=None)
def test_rope_scores_depend_on_distance_only(shift: int, apart: int, seed: int) -> None:
    torch.manual_seed(seed)
    q, k = torch.randn(2, 1, 1, 1, 32, dtype=torch.float64)

    def score(start: int) -> torch.Tensor:
        at_q = Rotation.of(line_angles(start, 1, 32), torch.float64, "cpu")
        at_k = Rotation.of(line_angles(start + apart, 1, 32), torch.float64, "cpu")
        return (at_q.turn(q) * at_k.turn(k)).sum()

    torch.testing.assert_close(score(0), score(shift))


def test_real_tables_agree_with_double_ones_to_float32_rounding() -> None:
    angles = video_angles(9, 22, 40, 128)
    x = torch.randn(1, len(angles), 1, 128)
    exact = Rotation.of(angles, torch.float64, "cpu").turn(x)
    real = Rotation.of(angles, torch.float32, "cpu").turn(x)
    assert float((real - exact).norm() / exact.norm()) < 2e-7


@given(
    frames_per_block=st.integers(1, 3),
    blocks=st.integers(1, 4),
    tokens=st.integers(1, 3),
    window=st.integers(1, 12),
)
@settings(max_examples=40, deadline=None)
def test_mask_is_causal_over_blocks(
    frames_per_block: int, blocks: int, tokens: int, window: int
) -> None:
    frames, actions = 1 + blocks * frames_per_block, 2
    mask = training_mask(
        frames,
        tokens,
        frames_per_block=frames_per_block,
        actions_per_block=actions,
        states_per_block=1,
        local_attn_size=window,
    )
    n = frames * tokens
    video_block = [(f - 1) // frames_per_block for f in range(frames) for _ in range(tokens)]
    action_block = [b for b in range(blocks) for _ in range(actions)]
    block = torch.tensor([*video_block, *video_block, *action_block, *range(blocks)])
    clean = torch.arange(len(block)) < n
    assert mask.diagonal().all()
    later = block[None] > block[:, None]
    assert not (mask & later).any(), "no one sees a later block"
    own_answer = clean[None] & ~clean[:, None] & (block[None] == block[:, None])
    assert not (mask & own_answer).any(), "nothing noisy sees its own clean copy"
    assert not (mask & clean[:, None] & ~clean[None]).any(), "clean frames see clean frames only"


def test_mask_refuses_part_of_a_block() -> None:
    with pytest.raises(ValueError, match="4 latent frames"):
        training_mask(
            4,
            1,
            frames_per_block=2,
            actions_per_block=1,
            states_per_block=1,
            local_attn_size=5,
        )


@given(f=st.integers(1, 3), h=st.integers(1, 3), w=st.integers(1, 3), c=st.integers(1, 3))
@settings(max_examples=20, deadline=None)
def test_patches_come_back(f: int, h: int, w: int, c: int) -> None:
    x = torch.randn(2, c, f, 2 * h, 2 * w)
    tokens = patchify(x, (1, 2, 2)).reshape(2, f * h * w, c, 4).transpose(2, 3).flatten(2)
    assert torch.equal(unpatchify(tokens, (f, h, w), (1, 2, 2)), x)


@given(
    frames=st.lists(st.integers(1, 3), min_size=1, max_size=6),
    chunks=st.integers(1, 3),
    seed=st.integers(0, 5),
)
@settings(max_examples=20, deadline=None)
def test_written_cache_equals_concatenated_one(frames: list[int], chunks: int, seed: int) -> None:
    """Also beyond the window, where the oldest frames fall out."""
    torch.manual_seed(seed)
    config = tiny(num_layers=2, max_chunk_size=chunks).dit
    model = CausalDiT(config).eval()
    context = model.embed_context(torch.randn(1, 16, 32), torch.randn(1, 257, 48))
    caches = (model.growing_cache(), model.static_cache())
    start = 0
    with torch.no_grad():
        for count in frames:
            x, y = torch.randn(1, 4, count, 4, 6), torch.randn(1, 8, count, 4, 6)
            zero = torch.zeros(1, count, dtype=torch.long)
            outs = [model.prefill(x, y, zero, start, context, c) for c in caches]
            torch.testing.assert_close(outs[0], outs[1])
            start += count
            x, y = torch.randn(1, 4, 2, 4, 6), torch.randn(1, 8, 2, 4, 6)
            t, ta = torch.full((1, 2), 700), torch.full((1, 6), 650)
            action, state = torch.randn(1, 6, 8), torch.randn(1, 1, 12)
            before = [c.past(1).clone() for c in caches]
            pairs = [model.denoise(x, y, t, action, ta, state, start, context, c) for c in caches]
            torch.testing.assert_close(pairs[0], pairs[1])
            for cache, past in zip(caches, before):
                assert torch.equal(cache.past(1), past), "denoising leaves the past alone"
            assert caches[0].length == caches[1].length <= model.window_tokens


def test_shared_time_rows_equal_rows_per_token() -> None:
    torch.manual_seed(0)
    model = CausalDiT(tiny().dit).eval()
    context = model.embed_context(torch.randn(1, 16, 32), torch.randn(1, 257, 48))
    x, y = torch.randn(1, 4, 2, 4, 6), torch.randn(1, 8, 2, 4, 6)
    action, state = torch.randn(1, 6, 8), torch.randn(1, 1, 12)
    t, ta = torch.tensor([[700]]), torch.tensor([[650]])
    cache = model.static_cache()
    with torch.no_grad():
        short = model.denoise(x, y, t, action, ta, state, 1, context, cache)
        full = model.denoise(
            x, y, t.expand(1, 2), action, ta.expand(1, 6), state, 1, context, cache
        )
        nothing, alone = model.denoise(
            x, y, t, action, ta, state, 1, context, cache, want_video=False
        )
    torch.testing.assert_close(short, full)
    assert nothing is None
    torch.testing.assert_close(alone, short[1])


def test_fused_projections_split_back_to_the_same_weights() -> None:
    torch.manual_seed(0)
    model = CausalDiT(tiny().dit)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    for block in model.blocks:
        block.self_attn.fuse()
    assert any("qkv" in k for k in model.state_dict())
    for block in model.blocks:
        block.self_attn.split()
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[k], after[k]) for k in before)


@pytest.mark.parametrize("kind", ["wan2.1", "wan2.2"])
def test_training_forward_has_gradients_for_every_parameter(kind: str) -> None:
    torch.manual_seed(0)
    config = dataclasses.replace(tiny(kind=kind).dit, max_chunk_size=2)
    model = CausalDiT(config)
    latents = (1, 4, 5, 4, 6)
    y = torch.randn(1, 8, 5, 4, 6) if kind == "wan2.1" else None
    context = model.embed_context(torch.randn(1, 16, 32), torch.randn(1, 257, 48))
    t, ta = torch.randint(0, 1000, (1, 5)), torch.randint(0, 1000, (1, 12))
    video, action = model(
        torch.randn(latents),
        torch.randn(latents),
        y,
        t,
        torch.randn(1, 12, 8),
        ta,
        torch.randn(1, 2, 12),
        context,
    )
    assert video.shape == latents and action.shape == (1, 12, 8)
    (video.square().mean() + action.square().mean()).backward()
    lost = [n for n, p in model.named_parameters() if p.grad is None]
    assert lost == []
