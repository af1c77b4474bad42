"""The policy head: when a window starts over, what runs how often, and what it refuses."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wam_ros.wam.conditioning import StagedClip, clip_schedule, observed_latents
from wam_ros.wam.config import WamConfig
from wam_ros.wam.head import CallOptions, CallResult, PolicyHead
from wam_ros.wam.parity.result import relative_l2
from wam_ros.wam.presets import tiny
from wam_ros.wam.random_model import random_head, random_prompt
from wam_ros.wam.savings import Savings
from wam_ros.wam.skipping import static_steps

SMALL = tiny(latent=(2, 4))
PROMPT, OTHER = random_prompt(SMALL, 1), random_prompt(SMALL, 2)
ONE_STEP = CallOptions(steps=1)
SAME = 1e-6
"""Where nothing is computed differently; kernels still round by the alignment of memory."""


def frames(count: int, seed: int = 0, config: WamConfig = SMALL) -> torch.Tensor:
    """Composites uint8 [1, count, H, W, 3]."""
    g = torch.Generator().manual_seed(seed)
    size = (1, count, config.head.video_height, config.head.video_width, 3)
    return torch.randint(0, 256, size, dtype=torch.uint8, generator=g)


def state(seed: int = 0, config: WamConfig = SMALL) -> torch.Tensor:
    c = config.dit
    g = torch.Generator().manual_seed(seed)
    return torch.rand(1, c.num_state_per_block, c.max_state_dim, generator=g) * 2 - 1


def call(
    head: PolicyHead, count: int, options: CallOptions = ONE_STEP, seed: int = 0
) -> CallResult:
    return head.call(frames(count, seed, head.config), *PROMPT, state(seed, head.config), options)


@pytest.fixture(scope="module")
def shared_head() -> PolicyHead:
    """One head for the tests that restart it; its weights never change."""
    return random_head(SMALL, Savings.all())


@pytest.fixture
def head(shared_head: PolicyHead) -> PolicyHead:
    shared_head.restart()
    return shared_head


# ---------------------------------------------------------------------- reset rules


def test_a_window_fills_and_starts_over(head: PolicyHead) -> None:
    results = [call(head, 1), *(call(head, 9, seed=i) for i in range(1, 7))]
    assert [r.reset for r in results] == [
        *("first call", "", "", "", "window full"),
        *("", ""),
    ]
    assert [r.start_frame for r in results] == [1, 3, 5, 7, 1, 3, 5]
    assert [r.next_frame for r in results] == [3, 5, 7, 9, 3, 5, 7]
    tokens = SMALL.dit.frame_seqlen
    assert [r.cached_tokens // tokens for r in results] == [1, 3, 5, 7, 1, 3, 5]
    assert [r.observed.shape[2] for r in results] == [1, 2, 2, 2, 1, 2, 2]
    assert all(r.video is not None and r.video.shape[2] == 2 + bool(r.reset) for r in results)


def test_a_new_instruction_and_a_single_frame_start_over(head: PolicyHead) -> None:
    call(head, 1)
    call(head, 9)
    assert head.call(frames(9), *OTHER, state(), ONE_STEP).reset == "new instruction"
    assert head.call(frames(9), *OTHER, state(), ONE_STEP).reset == ""
    assert head.call(frames(1), *OTHER, state(), ONE_STEP).reset == "single frame"
    head.restart()
    assert head.call(frames(9), *OTHER, state(), ONE_STEP).reset == "first call"


def test_the_mask_of_a_prompt_is_no_reason_to_start_over(head: PolicyHead) -> None:
    # The release compares ids only.
    call(head, 1)
    assert head.will_reset(PROMPT[0], 9) == ""
    assert head.will_reset(PROMPT[0].clone(), 9) == ""


@pytest.mark.parametrize(("count", "used"), [(4, 3), (9, 8), (8, 0), (5, 0), (1, 0)])
def test_which_frame_a_window_starts_from(head: PolicyHead, count: int, used: int) -> None:
    images = frames(count)
    many = head.call(images, *PROMPT, state(), ONE_STEP)
    head.restart()
    one = head.call(images[:, used : used + 1], *PROMPT, state(), ONE_STEP)
    assert relative_l2(many.action, one.action) < SAME


def test_nothing_is_left_of_the_window_before(head: PolicyHead) -> None:
    fresh = call(head, 1, seed=5)
    head.restart()
    call(head, 1, seed=1)
    for i in range(3):
        call(head, 9, seed=i)
    assert relative_l2(call(head, 1, seed=5).action, fresh.action) < SAME


def test_restart_forgets_the_image_too(head: PolicyHead) -> None:
    # The branches keep what they projected of prompt and image; a restart must not revive it.
    fresh = random_head(SMALL, Savings.all())
    call(head, 1, seed=1)
    head.restart()
    ours = call(head, 1, seed=2)
    assert relative_l2(ours.action, call(fresh, 1, seed=2).action) < SAME


def test_without_a_limit_every_call_starts_over() -> None:
    head = random_head(tiny(latent=(2, 4), max_chunk_size=-1), Savings.none())
    assert [call(head, 9).reset for _ in range(3)] == ["first call", "window full", "window full"]


def test_the_past_matters(head: PolicyHead) -> None:
    def second(seed: int) -> torch.Tensor:
        head.restart()
        call(head, 1, seed=seed)
        return head.call(frames(9), *PROMPT, state(), ONE_STEP).action

    assert relative_l2(second(1), second(2)) > 1e-4


# ---------------------------------------------------------------------- what runs


@pytest.mark.parametrize(
    ("options", "runs"),
    [
        (CallOptions(steps=16, dit_steps=16), 16),
        (CallOptions(steps=16, dit_steps=8), 8),
        (CallOptions(steps=16, dit_steps=5), 5),
        (CallOptions(steps=4), 4),
        (CallOptions(steps=1), 1),
    ],
)
@pytest.mark.parametrize("video", [True, False])
def test_forwards_per_call(options: CallOptions, runs: int, video: bool) -> None:
    options = dataclasses.replace(options, want_video=video)
    plain, lean = random_head(SMALL, Savings.none()), random_head(SMALL, Savings.all())
    first = [call(h, 1, options) for h in (plain, lean)]
    assert [r.denoises for r in first] == [(runs, runs), (runs, runs if video else runs - 1)]
    second = [call(h, 9, options, 1) for h in (plain, lean)]
    assert second[0].prefills == (1, 1)
    assert second[0].timesteps == second[1].timesteps
    assert len(second[0].timesteps) == runs
    assert (second[0].video is None) == (not video)
    if runs == 1 and not video:
        assert [r.prefills for r in (first[1], second[1])] == [(1, 0), (1, 0)]
    for a, b in (first, second):
        assert relative_l2(b.action, a.action) < 1e-4


def test_the_steps_that_run_are_those_of_the_mask(head: PolicyHead) -> None:
    every = call(head, 1, CallOptions(dit_steps=16)).timesteps
    for count in (8, 7, 6, 5):
        ran = call(head, 1, CallOptions(dit_steps=count)).timesteps
        assert ran == tuple(every[i] for i in static_steps(16, count))


def test_dynamic_skipping_skips_by_its_rule(head: PolicyHead) -> None:
    every = call(head, 1, CallOptions(dit_steps=16))
    dynamic = call(head, 1, CallOptions(dynamic=True))
    assert every.timesteps[:2] == dynamic.timesteps[:2]
    index = [every.timesteps.index(t) for t in dynamic.timesteps]
    assert all(b - a in (1, 3, 5) for a, b in pairwise(index))
    # With guidance off the scale and full noise the velocities hardly turn: some steps are saved.
    calm = call(head, 1, CallOptions(dynamic=True, guidance=0.0))
    assert 2 <= len(calm.timesteps) < 16


def test_guidance_moves_the_video_and_never_the_first_velocity_of_the_action(
    head: PolicyHead,
) -> None:
    one = [call(head, 1, CallOptions(steps=1, guidance=g)) for g in (1.0, 5.0)]
    assert relative_l2(one[1].action, one[0].action) < SAME
    assert one[0].video is not None and one[1].video is not None
    assert relative_l2(one[1].video, one[0].video) > 1e-2
    # From the second step on the action sees the guided video.
    two = [call(head, 1, CallOptions(steps=2, guidance=g)) for g in (1.0, 5.0)]
    assert relative_l2(two[1].action, two[0].action) > 1e-4


def test_decoupled_schedule_leaves_noise_in_the_video_only(head: PolicyHead) -> None:
    full = call(head, 1, CallOptions(steps=4))
    flash = call(head, 1, CallOptions(steps=4, final_noise=0.8))
    assert min(flash.timesteps) >= 800 > min(full.timesteps)
    noise = head._draw(1, None, None)[0]
    assert full.video is not None and flash.video is not None

    def likeness(video: torch.Tensor) -> float:
        a, b = video[:, :, -2:].flatten(), noise.flatten()
        return float(torch.nn.functional.cosine_similarity(a, b, dim=0))

    assert likeness(flash.video) > likeness(full.video)
    assert relative_l2(flash.action, full.action) > 1e-4


def test_options_come_from_the_configuration() -> None:
    config = dataclasses.replace(
        SMALL.head, decouple_inference_noise=True, num_inference_steps=4, cfg_scale=3.0
    )
    options = CallOptions.of(config)
    assert (options.steps, options.final_noise, options.guidance) == (4, 0.8, 3.0)
    assert CallOptions.of(SMALL.head).final_noise == 0.0


def test_the_same_noise_every_call_and_in_video_and_action(head: PolicyHead) -> None:
    video, action = head._draw(1, None, None)
    again = head._draw(1, None, None)
    assert torch.equal(video, again[0])
    n = min(video.numel(), action.numel()) // 16 * 16
    assert torch.equal(video.flatten()[:n], action.flatten()[:n])


# ---------------------------------------------------------------------- sizes


@pytest.mark.parametrize("rows", [24, 48])
@pytest.mark.parametrize("kind", ["wan2.1", "wan2.2"])
def test_24_and_48_rows_share_their_weights(rows: int, kind: str) -> None:
    config = tiny(kind=kind, latent=(2, 4)).with_action_rows(rows)
    head = random_head(config, Savings.all())
    for count in (1, 9):
        result = call(head, count)
        assert result.action.shape == (1, rows, config.dit.action_dim)
        assert bool(torch.isfinite(result.action).all())


@pytest.mark.parametrize("num_frames", [5, 17, 33])
def test_conditioning_shorter_than_the_window(num_frames: int) -> None:
    heads = [
        random_head(tiny(latent=(2, 4), num_frames=num_frames), s)
        for s in (Savings.none(), Savings.all())
    ]
    total = (num_frames - 1) // 4 + 1
    for i in range(6):
        plain, lean = (call(h, 9 if i else 1, CallOptions(steps=2), i) for h in heads)
        assert relative_l2(lean.action, plain.action) < 1e-4
        conditioning = heads[0]._conditioning
        assert conditioning is not None
        start = plain.start_frame
        y = conditioning.y(start, 2)
        ys = conditioning.y(0, total)
        assert y is not None and ys is not None
        first = start if start + 2 <= total else total - 2
        assert torch.equal(y, ys[:, :, first : first + 2])


# ---------------------------------------------------------------------- observed clips


@given(st.integers(1, 4), st.integers(1, 60))
def test_every_form_of_an_observation_fills_the_clip_or_is_refused(
    per_block: int, count: int
) -> None:
    try:
        index = clip_schedule(count, per_block)
    except ValueError as error:
        quads = count // 4
        assert quads == 0 or quads > per_block
        assert f"{count} frames" in str(error)
        return
    assert index[0] == 0
    assert list(index) == sorted(index)
    assert max(index) < count
    # Repeated unevenly where 4 does not divide the frames, then the clip may be short.
    if count % 4 == 0 or (count - 1) // 4 == per_block:
        assert len(index) == 4 * per_block + 1 or per_block % (count // 4)


def test_the_forms_of_an_observation() -> None:
    assert clip_schedule(9, 2) == (0, 1, 2, 3, 4, 5, 6, 7, 8)
    assert clip_schedule(8, 2) == (0, 0, 1, 2, 3, 4, 5, 6, 7)
    assert clip_schedule(4, 2) == (0, 0, 0, 1, 1, 2, 2, 3, 3)


@settings(max_examples=10, deadline=None)
@given(st.sampled_from([4, 8, 9]), st.integers(0, 99))
def test_staged_encoding_gives_the_same_latents(count: int, seed: int) -> None:
    video = STAGING.prepare(frames(count, seed))
    staged = STAGING.stage(count)
    with torch.no_grad():
        for i in range(count):
            assert not staged.complete
            staged.push(video[:, :, i : i + 1])
        expected = observed_latents(STAGING.vae, video, 2)
    assert relative_l2(staged.latents(), expected) < 1e-6


STAGING = random_head(SMALL, Savings.all())


def test_a_staged_clip_takes_what_was_announced() -> None:
    staged: StagedClip = STAGING.stage(4)
    with pytest.raises(RuntimeError, match="0 of 4 frames"):
        staged.latents()
    video = STAGING.prepare(frames(4))
    with torch.no_grad():
        for i in range(4):
            staged.push(video[:, :, i : i + 1])
        with pytest.raises(RuntimeError, match="all 4 frames"):
            staged.push(video[:, :, :1])


def test_idle_conditioning_changes_nothing_later() -> None:
    eager, idle = (random_head(SMALL, Savings.only("lazy_conditioning")) for _ in range(2))
    for i in range(5):
        a, b = (call(h, 9 if i else 1, seed=i) for h in (eager, idle))
        assert relative_l2(b.action, a.action) < SAME
        left = idle.finish_conditioning(2)
        assert idle.finish_conditioning(0) == left
    assert left == max(0, SMALL.window_latents - 3 - 2)


def test_decoded_frames_continue_the_observed_ones(head: PolicyHead) -> None:
    first = call(head, 1)
    assert first.video is not None
    out = head.decode(first.video, first.observed)
    assert out.shape == (1, 3, 8, SMALL.head.video_height, SMALL.head.video_width)
    assert float(out.abs().max()) <= 1.0


# ---------------------------------------------------------------------- refusals


def test_wrong_inputs_are_named(head: PolicyHead) -> None:
    good = frames(1)
    cases = [
        ({"images": good.float()}, r"images are torch.float32 .*expected uint8"),
        ({"images": good[:, :0]}, r"images are torch.uint8 \(1, 0, 16, 32, 3\)"),
        ({"images": good[0]}, r"expected uint8 \[B, T, H, W, 3\]"),
        ({"images": good[:, :, :8]}, r"images are 8x32, the model takes 16x32"),
        ({"state": torch.zeros(1, 12)}, r"state: shape \(1, 12\), expected \[B, 1, 12\]"),
        ({"state": torch.zeros(1, 1, 8)}, r"pad the state vector"),
        ({"state": torch.zeros(2, 1, 12)}, r"state: batch of 2, images have 1"),
        ({"ids": PROMPT[0][:, :9]}, r"ids: shape \(1, 9\), expected \[B, 16\]"),
        ({"mask": PROMPT[1][:, :9]}, r"mask: shape \(1, 9\)"),
        ({"noise_video": torch.zeros(1, 4, 1, 2, 4)}, r"noise_video: shape"),
        ({"noise_action": torch.zeros(1, 5, 8)}, r"noise_action: shape"),
    ]
    for change, words in cases:
        inputs = {
            "images": good,
            "ids": PROMPT[0],
            "mask": PROMPT[1],
            "state": state(),
            "options": ONE_STEP,
            **change,
        }
        with pytest.raises(ValueError, match=words):
            head.call(**inputs)  # type: ignore[arg-type]
    assert call(head, 1).reset == "first call"


@pytest.mark.parametrize("count", [2, 3, 13])
def test_numbers_of_frames_without_a_rule(head: PolicyHead, count: int) -> None:
    call(head, 1)
    with pytest.raises(ValueError, match=f"{count} frames cannot continue"):
        call(head, count)
    # Nothing has moved: the right number goes on where it was.
    result = call(head, 9)
    assert (result.reset, result.start_frame) == ("", 3)


def test_a_call_that_breaks_down_half_way_starts_over(
    head: PolicyHead, monkeypatch: pytest.MonkeyPatch
) -> None:
    call(head, 1)
    with monkeypatch.context() as patch:
        patch.setattr(head.branches, "denoise", _broken)
        with pytest.raises(RuntimeError, match="out of memory"):
            call(head, 9)
    result = call(head, 9)
    assert result.reset == "first call"
    assert result.cached_tokens == SMALL.dit.frame_seqlen


def _broken(*_: object) -> None:
    raise RuntimeError("out of memory")
