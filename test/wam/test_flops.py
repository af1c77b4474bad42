"""The FLOP count against the published figures of the 14B, and against counted kernels."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from wam_ros.wam import flops
from wam_ros.wam.attention import attention_backend
from wam_ros.wam.config import WamConfig
from wam_ros.wam.dit import CausalDiT
from wam_ros.wam.head import CallOptions
from wam_ros.wam.presets import preset, tiny
from wam_ros.wam.random_model import fill_random, random_head, random_prompt
from wam_ros.wam.savings import Savings
from wam_ros.wam.text import TextEncoder

BIG = preset("14b")
PLAIN = Savings.none()


@pytest.mark.parametrize(("cached", "tflop"), [(1, 51.6), (3, 54.2), (5, 56.8), (7, 59.4)])
def test_denoising_forward_of_the_14b(cached: int, tflop: float) -> None:
    cost = flops.denoise(BIG.dit, cached, PLAIN)
    assert cost.total / 1e12 == pytest.approx(tflop, abs=0.05)
    assert cost.linear / 1e12 == pytest.approx(42.68, abs=0.005)
    assert cost.context_kv / 1e12 == pytest.approx(3.23, abs=0.006)
    assert cost.context_scores / 1e12 == pytest.approx(1.12, abs=0.005)
    assert cost.time / 1e12 == pytest.approx(0.66, abs=0.005)
    assert cost.context_embedding / 1e12 == pytest.approx(0.05, abs=0.005)


@pytest.mark.parametrize(
    ("frames", "cached", "tflop"), [(1, 0, 25.8), (2, 1, 50.9), (2, 3, 53.5), (2, 5, 56.0)]
)
def test_prefill_of_the_14b(frames: int, cached: int, tflop: float) -> None:
    total = flops.prefill(BIG.dit, frames, cached, PLAIN).total
    assert total / 1e12 == pytest.approx(tflop, abs=0.05)


@pytest.mark.parametrize(
    ("steps", "run", "forwards", "tflop"),
    [(16, 16, 34, 1869), (16, 8, 18, 981), (16, 5, 12, 648), (4, 4, 10, 537), (1, 1, 4, 204)],
)
def test_chunk_of_the_14b(steps: int, run: int, forwards: int, tflop: float) -> None:
    found = flops.chunk(BIG, CallOptions(steps, run), PLAIN)
    assert found.forwards == forwards
    assert found.flops / 1e12 == pytest.approx(tflop, abs=0.5)


def test_encoders_of_the_14b() -> None:
    costs = flops.encoders(BIG)
    assert costs.vae(9) / 1e12 == pytest.approx(10.6, abs=0.05)
    assert costs.vae(33) / 1e12 == pytest.approx(37.7, abs=0.05)
    # 4.63 B parameters x 512 tokens, and attention.
    assert costs.text / 1e12 == pytest.approx(4.74, rel=0.03)


def test_forwards_by_kind() -> None:
    assert flops.forward(BIG.dit, 2, 3, True) == flops.denoise(BIG.dit, 3, PLAIN)
    assert flops.forward(BIG.dit, 2, 3, False) == flops.prefill(BIG.dit, 2, 3, PLAIN)
    with pytest.raises(ValueError, match="takes 2 latent frames, not 1"):
        flops.forward(BIG.dit, 1, 3, True)


def test_window_calls() -> None:
    assert flops.window_calls(BIG.dit) == (1, 3, 5, 7)
    assert flops.window_calls(tiny(max_chunk_size=2).dit) == (1, 3)
    assert flops.window_calls(tiny(max_chunk_size=-1).dit) == (1,)


CONFIGS = {"2.1": tiny(), "2.2": tiny(kind="wan2.2"), "rows": tiny(action_rows=24, num_layers=3)}


def _counted(dit: CausalDiT, run) -> float:  # type: ignore[no-untyped-def]
    dit.attend = attention_backend("math")
    with torch.no_grad():
        return flops.counted(run)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("lean", [False, True])
def test_formula_is_what_the_kernels_do(name: str, lean: bool) -> None:
    config: WamConfig = CONFIGS[name]
    c = config.dit
    savings = Savings.all() if lean else PLAIN
    dit = CausalDiT(c).requires_grad_(False)
    fill_random(dit, torch.Generator().manual_seed(0))
    text, clip = (
        torch.zeros(1, c.text_len, c.text_dim),
        torch.zeros(1, c.image_tokens, c.image_dim),
    )
    kept = dit.with_keys(dit.embed_context(text, clip))
    cache = dit.static_cache()
    channels = c.out_dim + 4 if c.concat_first_frame_latent else 0

    def block(n: int):  # type: ignore[no-untyped-def]
        size = (n, *config.latent_size)
        y = torch.zeros(1, channels, *size) if channels else None
        return torch.zeros(1, c.out_dim, *size), y

    def context():  # type: ignore[no-untyped-def]
        return kept if lean else dit.embed_context(text, clip)

    def prefill(frames: int, start: int):  # type: ignore[no-untyped-def]
        t = torch.zeros(1, 1 if lean else frames, dtype=torch.long)
        return dit.prefill(*block(frames), t, start, context(), cache, want_output=not lean)

    action = torch.zeros(1, c.num_action_per_block, c.action_dim)
    state = torch.zeros(1, c.num_state_per_block, c.max_state_dim)
    t = torch.zeros(1, 1 if lean else 2, dtype=torch.long)
    t_action = t if lean else torch.zeros(1, c.num_action_per_block, dtype=torch.long)

    def denoise(video: bool):  # type: ignore[no-untyped-def]
        inputs = (*block(2), t, action, t_action, state, 3, context(), cache)
        return dit.denoise(*inputs, want_video=video)

    for frames, start in ((1, 0), (2, 1)):
        expected = flops.prefill(c, frames, start, savings).total
        assert _counted(dit, partial(prefill, frames, start)) == expected
    for video in (True, False):
        expected = flops.denoise(c, 3, savings, video).total
        assert _counted(dit, partial(denoise, video or not lean)) == expected


@pytest.mark.parametrize("video", [True, False])
@pytest.mark.parametrize("steps", [1, 3])
def test_forwards_of_a_window_are_those_that_run(steps: int, video: bool) -> None:
    config = tiny(latent=(2, 4))
    options = CallOptions(steps, want_video=video)
    size = (config.head.video_height, config.head.video_width, 3)
    state = torch.zeros(1, 1, config.dit.max_state_dim)
    for savings in (PLAIN, Savings.all()):
        head = random_head(config, savings)
        ran = 0
        for i in range(config.dit.max_chunk_size):
            images = torch.zeros(1, 9 if i else 1, *size, dtype=torch.uint8)
            r = head.call(images, *random_prompt(config), state, options)
            ran += sum(r.prefills) + sum(r.denoises)
        assert ran / config.dit.max_chunk_size == flops.chunk(config, options, savings).forwards


def test_encoders_by_their_kernels() -> None:
    config = tiny()
    costs, encoder = flops.encoders(config), TextEncoder(config.t5)
    with torch.no_grad():
        assert flops.counted(lambda: encoder(*random_prompt(config))) == costs.text
        vae = random_head(config).vae
        for module in vae.net.modules():
            if type(module).__name__ == "Planar":  # what a CPU leaves out is not left out on a GPU
                module.__class__ = type(module).__mro__[1]
        size = (config.head.video_height, config.head.video_width)
        for frames in (1, 9, 17):
            video = torch.zeros(1, 3, frames, *size)
            counted = flops.counted(partial(vae.encode, video))
            # Its one attention is counted per kernel, and meta tensors take another.
            assert counted == pytest.approx(costs.vae(frames), rel=5e-3)
