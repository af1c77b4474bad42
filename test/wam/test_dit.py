"""The transformer: who sees whom, cached inference against the training forward, both caches."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wam_ros.wam.cache import StaticCache
from wam_ros.wam.config import ConfigError, WamConfig
from wam_ros.wam.dit import CausalDiT, Context
from wam_ros.wam.mask import training_mask
from wam_ros.wam.parity.result import relative_l2
from wam_ros.wam.presets import tiny
from wam_ros.wam.random_model import fill_random

CONFIGS = {
    "concat": tiny(),
    "5b layout": tiny(kind="wan2.2"),
    "24 rows": tiny(action_rows=24, latent=(2, 4)),
    "48 rows": tiny(action_rows=48, latent=(2, 4)),
    "odd heads": tiny(dim=48, num_heads=3, num_layers=3, z_dim=3, latent=(4, 2)),
    "short window": tiny(max_chunk_size=2, latent=(2, 2)),
}


def transformer(config: WamConfig, seed: int = 0) -> CausalDiT:
    dit = CausalDiT(config.dit).eval().requires_grad_(False)
    fill_random(dit, torch.Generator().manual_seed(seed))
    return dit


@dataclasses.dataclass
class Inputs:
    """A whole window of inputs of the training forward."""

    noisy: torch.Tensor
    clean: torch.Tensor
    y: torch.Tensor | None
    t: torch.Tensor
    action: torch.Tensor
    t_action: torch.Tensor
    state: torch.Tensor
    context: Context

    @staticmethod
    def random(config: WamConfig, dit: CausalDiT, blocks: int, seed: int = 1) -> Inputs:
        c = config.dit
        g = torch.Generator().manual_seed(seed)
        frames, k = 1 + blocks * c.num_frame_per_block, c.num_frame_per_block
        size = (frames, *config.latent_size)
        levels = torch.randint(1, 1000, (1, blocks), generator=g)
        t = torch.cat((torch.tensor([[500]]), levels.repeat_interleave(k, 1)), dim=1)
        context = dit.embed_context(
            torch.randn(1, c.text_len, c.text_dim, generator=g),
            torch.randn(1, c.image_tokens, c.image_dim, generator=g),
        )
        concat = c.concat_first_frame_latent
        return Inputs(
            torch.randn(1, c.out_dim, *size, generator=g),
            torch.randn(1, c.out_dim, *size, generator=g),
            torch.randn(1, c.out_dim + 4, *size, generator=g) if concat else None,
            t,
            torch.randn(1, blocks * c.num_action_per_block, c.action_dim, generator=g),
            torch.randint(1, 1000, (1, blocks), generator=g).repeat_interleave(
                c.num_action_per_block, 1
            ),
            torch.randn(1, blocks * c.num_state_per_block, c.max_state_dim, generator=g),
            context,
        )

    def train(self, dit: CausalDiT) -> tuple[torch.Tensor, torch.Tensor]:
        return dit(
            self.noisy,
            self.clean,
            self.y,
            self.t,
            self.action,
            self.t_action,
            self.state,
            self.context,
        )

    def frames(self, x: torch.Tensor | None, start: int, count: int) -> torch.Tensor | None:
        return None if x is None else x[:, :, start : start + count]


def infer(dit: CausalDiT, i: Inputs, cache, blocks: int, shared: bool):  # type: ignore[no-untyped-def]
    """Velocities of the last of ``blocks`` blocks by cached inference."""
    c = dit.config
    k, rows = c.num_frame_per_block, c.num_action_per_block
    start = 0
    for count in (1, *[k] * (blocks - 1)):
        x, y = i.frames(i.clean, start, count), i.frames(i.y, start, count)
        t = torch.zeros(1, 1 if shared else count, dtype=torch.long)
        dit.prefill(x, y, t, start, i.context, cache, want_output=not shared)
        start += count
    last = slice((blocks - 1) * rows, blocks * rows)
    few = slice(0, 1) if shared else slice(None)
    return dit.denoise(
        i.frames(i.noisy, start, k),
        i.frames(i.y, start, k),
        i.t[:, start : start + k][:, few],
        i.action[:, last],
        i.t_action[:, last][:, few],
        i.state[:, blocks - 1 : blocks],
        start,
        i.context,
        cache,
    )


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("kind", ["growing", "static", "static, shared time"])
def test_cached_inference_is_the_training_forward(name: str, kind: str) -> None:
    # Where they differ by design is the state token, which sees everything at inference and only
    # itself in the released training. With that line of the mask opened the two must agree.
    config = CONFIGS[name]
    dit, blocks = transformer(config), config.dit.max_chunk_size
    inputs = Inputs.random(config, dit, blocks)
    dit.seeing_states = True
    video, action = inputs.train(dit)
    cache = dit.growing_cache() if kind == "growing" else dit.static_cache()
    k, rows = config.dit.num_frame_per_block, config.dit.num_action_per_block
    ours = infer(dit, inputs, cache, blocks, "shared" in kind)
    assert relative_l2(ours[0], video[:, :, -k:]) < 1e-5
    assert relative_l2(ours[1], action[:, -rows:]) < 1e-5


def test_states_blindness_in_training_is_what_sets_the_two_apart() -> None:
    config = CONFIGS["concat"]
    dit = transformer(config)
    inputs = Inputs.random(config, dit, 2)
    _, action = inputs.train(dit)
    _, ours = infer(dit, inputs, dit.growing_cache(), 2, False)
    assert relative_l2(ours, action[:, -config.dit.num_action_per_block :]) > 1e-3


def test_batched_inputs_do_not_mix() -> None:
    config = CONFIGS["concat"]
    dit = transformer(config)
    a, b = Inputs.random(config, dit, 2, 1), Inputs.random(config, dit, 2, 2)
    both = Inputs(
        *(
            None if x is None else torch.cat((x, z))
            for x, z in (
                (getattr(a, f.name), getattr(b, f.name))
                for f in dataclasses.fields(Inputs)
                if f.name != "context"
            )
        ),
        context=Context(
            torch.cat((a.context.text, b.context.text)),
            torch.cat((a.context.image, b.context.image)),
        ),
    )
    one = infer(dit, a, dit.static_cache(), 2, True)
    two = infer(dit, both, dit.static_cache(2), 2, True)
    assert relative_l2(two[0][:1], one[0]) < 1e-5
    assert relative_l2(two[1][:1], one[1]) < 1e-5
    assert relative_l2(two[1][1:], one[1]) > 1e-2


def test_denoising_leaves_the_past_alone() -> None:
    config = CONFIGS["concat"]
    dit = transformer(config)
    inputs = Inputs.random(config, dit, 2)
    for cache in (dit.growing_cache(), dit.static_cache()):
        first = infer(dit, inputs, cache, 2, False)
        before = [cache.past(i).clone() for i in range(2)]
        length = cache.length
        last = slice(config.dit.num_action_per_block, None)
        again = dit.denoise(
            inputs.frames(inputs.noisy, 3, 2),
            inputs.frames(inputs.y, 3, 2),
            inputs.t[:, 3:5],
            inputs.action[:, last],
            inputs.t_action[:, last],
            inputs.state[:, 1:],
            3,
            inputs.context,
            cache,
        )
        assert relative_l2(again[1], first[1]) < 1e-6
        assert cache.length == length == 3 * config.dit.frame_seqlen
        assert all(torch.equal(a, cache.past(i)) for i, a in enumerate(before))


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 3), min_size=1, max_size=6), st.booleans())
def test_both_caches_hold_the_same_past_beyond_the_window_too(
    counts: list[int], denoise: bool
) -> None:
    config = CONFIGS["short window"]
    dit, c = transformer(config), config.dit
    g = torch.Generator().manual_seed(4)
    inputs = Inputs.random(config, dit, 1)
    caches = dit.growing_cache(), dit.static_cache()
    start = 0
    for count in counts:
        x = torch.randn(1, c.out_dim, count, *config.latent_size, generator=g)
        y = torch.randn(1, c.out_dim + 4, count, *config.latent_size, generator=g)
        t = torch.zeros(1, count, dtype=torch.long)
        for cache in caches:
            dit.prefill(x, y, t, start, inputs.context, cache, want_output=False)
        start += count
        assert caches[0].length == caches[1].length == min(start, 5) * c.frame_seqlen
    for layer in range(c.num_layers):
        a, b = caches[0].past(layer), caches[1].past(layer)
        assert a.shape == b.shape
        assert relative_l2(b, a) < 1e-5
    if denoise:
        action, state = inputs.action[:, : c.num_action_per_block], inputs.state[:, :1]
        t = torch.full((1, 1), 700)
        k = slice(1, 3)
        y = None if inputs.y is None else inputs.y[:, :, k]
        outs = [
            dit.denoise(inputs.noisy[:, :, k], y, t, action, t, state, 1, inputs.context, cache)
            for cache in caches
        ]
        assert relative_l2(outs[1][1], outs[0][1]) < 1e-5


def test_static_cache_names_what_does_not_fit() -> None:
    cache = StaticCache.allocate(1, 1, 8, 3, 2, 4, torch.float32, "cpu")
    with pytest.raises(ValueError, match=r"9 video tokens do not fit the window of 8"):
        cache.slot(0, 9, 9)
    with pytest.raises(ValueError, match=r"4 register tokens do not fit the scratch of 3"):
        cache.slot(0, 12, 8)
    with pytest.raises(IndexError, match="run a prefill first"):
        CausalDiT(CONFIGS["concat"].dit).growing_cache().past(0)


# ---------------------------------------------------------------------- training mask

SIZES = st.tuples(
    st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.integers(1, 2)
)


@given(SIZES, st.integers(0, 3))
def test_mask_by_the_rules_of_teacher_forcing(
    sizes: tuple[int, int, int, int, int], window: int
) -> None:
    blocks, k, per_frame, actions, states = sizes
    frames, size = 1 + blocks * k, window * k + 1
    mask = training_mask(
        frames,
        per_frame,
        frames_per_block=k,
        actions_per_block=actions,
        states_per_block=states,
        local_attn_size=size,
    )

    def block_of(frame: int) -> int:
        return (frame - 1) // k if frame else -1

    tokens = [("clean", f, block_of(f)) for f in range(frames) for _ in range(per_frame)]
    tokens += [("noisy", f, block_of(f)) for f in range(frames) for _ in range(per_frame)]
    tokens += [("action", 0, b) for b in range(blocks) for _ in range(actions)]
    tokens += [("state", 0, b) for b in range(blocks) for _ in range(states)]

    def sees(query: tuple[str, int, int], key: tuple[str, int, int]) -> bool:
        kind, _, b = query
        if kind == "clean":
            recent = key[1] >= (b + 1) * k + 1 - size or key[1] == 0 or key[2] == b
            return key[0] == "clean" and key[2] <= b and recent
        if kind == "state":
            return key[0] == "state" and key[2] == b
        if key[0] == "clean":
            return key[2] < b
        return key[2] == b

    expected = torch.tensor([[sees(q, key) for key in tokens] for q in tokens])
    assert torch.equal(mask, expected)


def test_mask_refuses_broken_blocks() -> None:
    sizes = {"frames_per_block": 2, "actions_per_block": 1, "states_per_block": 1}
    with pytest.raises(ValueError, match="4 latent frames are not 1 \\+ a multiple"):
        training_mask(4, 1, **sizes, local_attn_size=5)


def test_contradicting_dimensions_are_named() -> None:
    config = tiny()
    for change, words in (
        ({"num_heads": 3}, "num_heads 3"),
        ({"in_dim": 13}, "in_dim 13"),
        ({"num_state_per_block": 4}, "num_action_per_block 6"),
    ):
        with pytest.raises(ConfigError, match=words):
            dataclasses.replace(config.dit, **change)
    with pytest.raises(ConfigError, match="action_horizon 6 differs"):
        dataclasses.replace(config, dit=dataclasses.replace(config.dit, num_action_per_block=8))


@pytest.mark.parametrize("kind", ["wan2.1", "wan2.2"])
@pytest.mark.parametrize("blocks", [1, 3])
@pytest.mark.parametrize("shared", [True, False])
def test_a_lean_training_forward_predicts_the_same(kind: str, blocks: int, shared: bool) -> None:
    torch.manual_seed(0)
    c = tiny(kind=kind, num_frames=1 + 8 * blocks).dit
    dit = CausalDiT(c)
    frames, rows = 1 + c.num_frame_per_block * blocks, c.num_action_per_block
    latents = torch.randn(2, 2, c.out_dim, frames, 4, 6)
    y = torch.randn(2, c.in_dim - c.out_dim, frames, 4, 6) if kind == "wan2.1" else None
    level = torch.randint(1000, (2, blocks))
    t = torch.cat(
        (torch.randint(1000, (2, 1)), level.repeat_interleave(c.num_frame_per_block, 1)), 1
    )
    t_action = level if shared else torch.randint(1000, (2, blocks * rows))
    action = torch.randn(2, blocks * rows, c.action_dim)
    state = torch.randn(2, blocks * c.num_state_per_block, c.max_state_dim)
    context = dit.embed_context(
        torch.randn(2, c.text_len, c.text_dim), torch.randn(2, c.image_tokens, c.image_dim)
    )
    every = t_action.repeat_interleave(rows, 1) if shared else t_action
    with torch.no_grad():
        video, velocity = dit(*latents, y, t, action, every, state, context)
        lean = dit(*latents, y, t, action, t_action, state, context, lean=True)
    torch.testing.assert_close(lean[0], video[:, :, 1:])
    torch.testing.assert_close(lean[1], velocity)
