"""The policy head: resets, sampling modes, savings that change no action, failure."""

from __future__ import annotations

import dataclasses
from functools import cache

import pytest
import torch

from wam_ros.wam.head import CallOptions, CallResult
from wam_ros.wam.savings import Savings

from .heads import images, make_head, run_calls, state, tokens

FAST = CallOptions(steps=4, dit_steps=16)
MODES = {
    "8 of 16": CallOptions(16, 8),
    "4": CallOptions(4, 16),
    "1": CallOptions(1, 16),
    "dynamic": CallOptions(8, 16, dynamic=True),
    "flash": CallOptions(2, 16, final_noise=0.8),
}


COUNTS = (1, 4, 8)


@cache
def _plain(mode: str, kind: str = "wan2.1", rows: int = 24) -> list[CallResult]:
    """What the plain path returns, video and all."""
    return run_calls(make_head(kind=kind, rows=rows), MODES[mode], COUNTS)


def _error(ours: list[CallResult], plain: list[CallResult]) -> float:
    pairs = zip(ours, plain)
    return max(float((a.action - b.action).norm() / b.action.norm()) for a, b in pairs)


@pytest.mark.parametrize("want_video", [True, False])
@pytest.mark.parametrize("name", [*Savings.names(), "all"])
def test_each_saving_returns_the_same_actions(name: str, want_video: bool) -> None:
    options = dataclasses.replace(MODES["4"], want_video=want_video)
    savings = Savings.all() if name == "all" else Savings.only(name)
    expected, found = _plain("4"), run_calls(make_head(savings), options, COUNTS)
    assert _error(found, expected) < 2e-5
    assert [r.reset for r in found] == [r.reset for r in expected]
    if want_video:
        for a, b in zip(found, expected):
            torch.testing.assert_close(a.video, b.video, atol=2e-4, rtol=2e-4)
    else:
        assert all(r.video is None for r in found)


@pytest.mark.parametrize("rows", [24, 48])
@pytest.mark.parametrize("kind", ["wan2.1", "wan2.2"])
@pytest.mark.parametrize("mode", MODES)
def test_all_savings_in_every_sampling_mode(mode: str, kind: str, rows: int) -> None:
    options = dataclasses.replace(MODES[mode], want_video=False)
    expected = _plain(mode, kind, rows)
    found = run_calls(make_head(Savings.all(), kind, rows), options, COUNTS)
    assert all(r.action.shape == (1, rows, 8) for r in found)
    assert _error(found, expected) < 2e-5
    assert [r.timesteps for r in found] == [r.timesteps for r in expected]


def test_conditioning_shorter_than_the_window() -> None:
    """17 frames give 5 conditioning latents of a window of 9: beyond them the last ones serve."""
    counts = (1, 4, 4, 4, 4)
    plain = run_calls(make_head(num_frames=17), FAST, counts)
    assert [r.start_frame for r in plain] == [1, 3, 5, 7, 1]
    saved = run_calls(make_head(Savings.all(), num_frames=17), FAST, counts)
    assert _error(saved, plain) < 2e-5


def test_one_step_without_video_never_runs_the_unconditional_branch() -> None:
    head = make_head(Savings.all())
    options = CallOptions(1, want_video=False)
    for result in run_calls(head, options, (1, 4, 4)):
        assert result.prefills == (1, 0)
        assert result.denoises == (1, 0)
    # Wanting the video later catches up on what was left out.
    plain = make_head()
    run_calls(plain, CallOptions(1), (1, 4, 4))
    late = [head, plain]
    calls = [h.call(images(h, 4, 9), *tokens(0), state(h), CallOptions(1)) for h in late]
    assert (calls[0].prefills, calls[0].denoises) == ((1, 4), (1, 1))
    torch.testing.assert_close(calls[0].video, calls[1].video, atol=2e-4, rtol=2e-4)


def test_last_step_drops_one_forward() -> None:
    options = CallOptions(16, 8, want_video=False)
    plain = run_calls(make_head(), options, (1,))[0]
    saved = run_calls(make_head(Savings.only("dead_uncond")), options, (1,))[0]
    assert plain.denoises == (8, 8)
    assert saved.denoises == (8, 7)
    assert torch.equal(plain.action, saved.action)


def test_windows_start_over_by_the_reference_rules() -> None:
    head = make_head()
    options = CallOptions(1)

    def call(count: int, prompt: int = 0) -> CallResult:
        return head.call(images(head, count, 0), *tokens(prompt), state(head), options)

    assert call(4).reset == "first call"
    assert [call(4).next_frame for _ in range(3)] == [5, 7, 9]
    full = call(4)
    assert (full.reset, full.start_frame, full.next_frame) == ("window full", 1, 3)
    assert call(4).reset == ""
    assert call(4, prompt=1).reset == "new instruction"
    assert call(4, prompt=1).reset == ""
    assert call(1, prompt=1).reset == "single frame"
    head.restart()
    assert call(4, prompt=1).reset == "first call"


def test_video_of_a_first_call_starts_with_the_observed_latent() -> None:
    head = make_head()
    first, second = run_calls(head, FAST, (1, 4))
    assert first.video is not None and second.video is not None
    assert first.video.shape[2] == 3 and second.video.shape[2] == 2
    assert torch.equal(first.video[:, :, :1], first.observed)
    frames = head.decode(second.video, second.observed[:, :, -1:])
    assert frames.shape == (1, 3, 8, 32, 48)


def test_noise_is_the_same_in_every_call_unless_given() -> None:
    head = make_head()
    a, b = (head.call(images(head, 1, 3), *tokens(0), state(head), FAST) for _ in range(2))
    assert torch.equal(a.action, b.action)
    other = torch.randn(1, 24, 8)
    c = head.call(images(head, 1, 3), *tokens(0), state(head), FAST, noise_action=other)
    assert not torch.equal(a.action, c.action)


def test_bad_input_leaves_the_window_alone() -> None:
    head = make_head()
    run_calls(head, FAST, (1, 4))
    at = head.next_frame
    with pytest.raises(ValueError, match="3 frames cannot continue"):
        head.call(images(head, 3, 0), *tokens(0), state(head), FAST)
    with pytest.raises(ValueError, match="pad the state vector"):
        head.call(images(head, 4, 0), *tokens(0), state(head)[..., :5], FAST)
    assert head.next_frame == at
    assert head.call(images(head, 4, 0), *tokens(0), state(head), FAST).reset == ""


def test_failure_midway_starts_over(monkeypatch: pytest.MonkeyPatch) -> None:
    head = make_head(Savings.all())
    run_calls(head, FAST, (1, 4))

    def broken(*_a: object, **_k: object) -> None:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as m:
        m.setattr(head.branches, "denoise", broken)
        with pytest.raises(RuntimeError, match="out of memory"):
            head.call(images(head, 4, 2), *tokens(0), state(head), FAST)
    again = head.call(images(head, 4, 2), *tokens(0), state(head), FAST)
    fresh = make_head(Savings.all()).call(images(head, 4, 2), *tokens(0), state(head), FAST)
    assert again.reset == "first call"
    assert torch.equal(again.action, fresh.action)


def test_opened_window_equals_a_first_call_before_it() -> None:
    one, two = make_head(), make_head(Savings.all())
    run_calls(one, FAST, (1, 4))
    two.open_window(images(two, 1, 0), *tokens(0))
    result = two.call(images(two, 4, 1), *tokens(0), state(two, 1), FAST)
    one.restart()
    expected = run_calls(one, FAST, (1, 4))[1]
    assert result.reset == "" and result.start_frame == 3
    assert _error([result], [expected]) < 2e-5


def test_batched_branches_need_a_written_cache() -> None:
    with pytest.raises(ValueError, match="static_cache"):
        Savings(batched_cfg=True)
