"""The session: cadences, staging, surprise, independent of who decides when to call."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wam_ros.wam import frames as timing
from wam_ros.wam.head import CallOptions
from wam_ros.wam.imagined import frames as frames_of
from wam_ros.wam.savings import Savings
from wam_ros.wam.session import Chunk, Session

from .heads import images, make_head, state, tokens

ONE = CallOptions(1, 16)
PERIOD = 0.1


def _session(savings: Savings | None = None, **kw: object) -> Session:
    kw.setdefault("options", ONE)
    names = {"pick": 1, "place": 2}
    session = Session(
        make_head(savings, rows=6),
        lambda text: tokens(names[text]),
        step_period=PERIOD,
        **kw,  # type: ignore[arg-type]
    )
    session.instruct("pick")
    return session


def _feed(session: Session, rows: int, start: int, executing: bool = True) -> int:
    for i in range(start, start + rows):
        image = images(session.head, 1, 1000 + i)[0, 0]
        session.observe(image, PERIOD * i, executing=executing)
    return start + rows


def _run(session: Session, calls: int, rows: int = 6, ahead: float | None = None) -> list[Chunk]:
    at, out = _feed(session, 1, 0), []
    for _ in range(calls):
        out.append(session.chunk(state(session.head), ahead))
        at = _feed(session, rows, at)
    return out


def test_slots_of_the_reference_client_and_of_training() -> None:
    assert timing.slots(4, 24, 2) == (1, 8, 16, 24)
    assert timing.slots(8, 24, 2) == (3, 6, 9, 12, 15, 18, 21, 24)
    assert timing.slots(9, 24, 2) == (0, 3, 6, 9, 12, 15, 18, 21, 24)
    with pytest.raises(ValueError, match="1 frames"):
        timing.slots(1, 24, 2)
    with pytest.raises(ValueError, match="no frame"):
        timing.pick([], (1.0,))


@given(frames=st.integers(2, 9), rows=st.floats(1, 60), seen=st.integers(1, 70))
def test_picked_frames_never_run_backwards(frames: int, rows: float, seen: int) -> None:
    index = timing.pick([float(i) for i in range(seen)], timing.slots(frames, rows, 2))
    assert list(index) == sorted(index)
    assert len(index) == frames and index[-1] <= seen - 1


def test_sync_calls_equal_direct_calls_with_the_same_frames() -> None:
    session, head = _session(Savings.all()), make_head(rows=6)
    got = _run(session, 3)
    assert [c.fed for c in got[1:]] == [(1, 2, 4, 6)] * 2
    for call, fed in zip(got, ([0], [1, 2, 4, 6], [7, 8, 10, 12])):
        video = torch.cat([images(head, 1, 1000 + i) for i in fed], dim=1)
        expected = head.call(video, *tokens(1), state(head), ONE)
        torch.testing.assert_close(call.actions, expected.action[0], atol=1e-4, rtol=1e-4)
        assert call.reset == expected.reset
        assert call.stamp == pytest.approx(PERIOD * fed[-1])
        assert call.context[1] == 9


@pytest.mark.parametrize("count", [4, 8, 9])
def test_staging_changes_nothing_but_when_the_encoder_runs(count: int) -> None:
    plain = _run(_session(frames_per_call=count), 6)
    staged = _run(_session(Savings.only("staged_vae"), frames_per_call=count), 6)
    for a, b in zip(plain, staged):
        assert a.fed == b.fed and a.reset == b.reset
        torch.testing.assert_close(a.actions, b.actions, atol=1e-5, rtol=1e-5)
    assert [c.reset for c in plain] == ["first call", "", "", "", "window full", ""]
    assert "vae" in plain[1].seconds and "vae" not in staged[1].seconds


def test_frames_seen_while_holding_do_not_continue_a_window() -> None:
    moving, holding = _session(), _session()
    a = _run(moving, 2)[1]
    at = _feed(holding, 1, 0)
    holding.chunk(state(holding.head))
    at = _feed(holding, 6, at)
    _feed(holding, 10, at, executing=False)
    b = holding.chunk(state(holding.head))
    assert torch.equal(a.actions, b.actions)
    assert b.stamp == pytest.approx(PERIOD * 16)


def test_async_spreads_the_frames_over_the_shorter_block() -> None:
    session = _session(Savings.only("staged_vae"), cadence="async")
    calls = _run(session, 3, rows=4, ahead=4.0)
    assert calls[1].fed == (1, 1, 3, 4)
    assert "vae" not in calls[1].seconds
    assert math.isnan(calls[1].surprise), "what was fed lies at other times"


def _latents(session: Session, numbers: list[int], count: int) -> torch.Tensor:
    """Last ``count`` latents of a clip of the frames with these numbers."""
    head = session.head
    clip = torch.cat([images(head, 1, 1000 + i) for i in numbers], dim=1)
    return head.vae.encode(head.prepare(clip))[:, :, -count:]


def _value(session: Session, chunk: Chunk) -> float:
    return math.nan if chunk.judgement is None else chunk.judgement.value(session.head)


def test_surprise_costs_nothing_where_the_call_was_fed_the_imagined_times() -> None:
    session = _session(frames_per_call=8)
    calls = _run(session, 6)
    assert [math.isnan(c.surprise) for c in calls] == [True, False, False, False, True, False]
    previous, now = calls[0].result, calls[1].result
    assert previous.video is not None
    expected = (previous.video[:, :, -2:] - now.observed).norm() / now.observed.norm()
    assert calls[1].surprise == pytest.approx(float(expected), rel=1e-4)
    assert _value(session, calls[1]) == calls[1].surprise
    # The window was full and took a single frame, but the block before had been seen.
    assert calls[4].reset == "window full" and _value(session, calls[4]) > 0.0
    without = _run(_session(options=CallOptions(1, want_video=False)), 2)
    assert without[1].judgement is None and without[1].imagined is None
    flash = _run(_session(options=CallOptions(1, final_noise=0.8)), 2)
    assert flash[1].judgement is None, "a video that stays noisy imagines nothing"


@pytest.mark.parametrize("alone", [True, False])
def test_imagined_frames_follow_what_the_model_was_trained_to_follow(alone: bool) -> None:
    session = _session(frames_per_call=9)
    head = session.head
    head.config = replace(head.config, head=replace(head.config.head, blocks_alone=alone))
    for call in _run(session, 2):
        assert call.result.video is not None
        block = call.result.video[:, :, -2:]
        with torch.no_grad():
            before = head.vae.encode(head.prepare(call.opening))
            if not alone:
                before = call.result.observed
            wanted = head.vae.decode(torch.cat((before, block), dim=2))[0, :, -8:]
        exact = ((wanted.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        found = torch.stack([f for _, f in frames_of(head, call.result, call.opening)])
        assert torch.equal(found, exact.permute(1, 2, 3, 0))


def test_fewer_frames_are_encoded_again_at_the_imagined_times() -> None:
    """Four frames, as the reference's client sends, lie elsewhere than the eight imagined."""
    session = _session()
    calls = _run(session, 2)
    assert calls[1].fed == (1, 2, 4, 6) and math.isnan(calls[1].surprise)
    # Of six rows the eight frames are due at 0.75, 1.5, ... 6; the nearest row stands for each.
    observed = _latents(session, [0, 1, 1, 2, 3, 4, 4, 5, 6], 2)
    video = calls[0].result.video
    assert video is not None
    expected = float((video[:, :, -2:] - observed).norm() / observed.norm())
    assert _value(session, calls[1]) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("rows", "latents"), [(2, 0), (3, 1), (5, 1), (6, 2)])
def test_async_compares_the_latents_that_were_seen_whole(rows: int, latents: int) -> None:
    session = _session(cadence="async")
    calls = _run(session, 3, rows=rows, ahead=float(rows))
    judgement = calls[1].judgement
    assert calls[0].judgement is None
    if not latents:
        assert judgement is None
        return
    assert judgement is not None and judgement.imagined.shape[2] == latents
    observed = _latents(session, [0, 1, 1, 2, 3, 4, 4, 5, 6][: 1 + 4 * latents], latents)
    video = calls[0].result.video
    assert video is not None
    imagined = video[:, :, -2:][:, :, :latents]
    expected = float((imagined - observed).norm() / observed.norm())
    assert judgement.value(session.head) == pytest.approx(expected, rel=1e-4)


def test_sliding_compares_the_newest_block_with_a_latent_seen_whole() -> None:
    session = _session(cadence="sliding")
    at, calls = _feed(session, 7, 0), []
    for _ in range(6):
        calls.append(session.chunk(state(session.head)))
        at = _feed(session, 1, at)
    # Three rows make a latent: the fourth call is the first that sees what the first imagined.
    assert [c.judgement is None for c in calls] == [True] * 3 + [False] * 3
    video, judgement = calls[2].result.video, calls[5].judgement
    assert video is not None and judgement is not None
    observed = _latents(session, [8, 9, 9, 10, 11], 1)
    imagined = video[:, :, -2:][:, :, :1]
    expected = float((imagined - observed).norm() / observed.norm())
    assert judgement.value(session.head) == pytest.approx(expected, rel=1e-4)
    session.reset()
    _feed(session, 4, at)
    assert session.chunk(state(session.head)).judgement is None


def test_frames_seen_while_holding_are_not_compared() -> None:
    session = _session()
    at = _feed(session, 1, 0)
    session.chunk(state(session.head))
    at = _feed(session, 6, at)
    _feed(session, 5, at, executing=False)
    held = session.chunk(state(session.head))
    other = _session()
    assert _value(session, held) == _value(other, _run(other, 2)[1])


def test_new_instruction_starts_a_window() -> None:
    session = _session()
    at = _feed(session, 1, 0)
    session.chunk(state(session.head))
    at = _feed(session, 6, at)
    session.instruct("place")
    call = session.chunk(state(session.head))
    assert call.reset == "new instruction"
    assert call.fed == (6.0,)
    session.reset()
    with pytest.raises(RuntimeError, match="no observation yet"):
        session.chunk(state(session.head))
    _feed(session, 1, at)
    assert session.chunk(state(session.head)).reset == "first call"


@pytest.mark.parametrize("history", [0, 1])
def test_sliding_calls_carry_nothing_over(history: int) -> None:
    session = _session(cadence="sliding", history=history)
    _feed(session, 12, 0)
    first = session.chunk(state(session.head))
    again = _session(cadence="sliding", history=history)
    _feed(again, 1, 0)
    again.chunk(state(again.head))
    _feed(again, 11, 1)
    second = again.chunk(state(again.head))
    assert torch.equal(first.actions, second.actions)
    assert first.context[0] == (3 if history else 1)
    assert first.judgement is None


def test_sliding_with_history_equals_a_window_opened_a_block_ago() -> None:
    session, head = _session(Savings.all(), cadence="sliding"), make_head(rows=6)
    _feed(session, 12, 0)
    got = session.chunk(state(session.head))
    head.call(images(head, 1, 1005), *tokens(1), state(head), ONE)
    video = torch.cat([images(head, 1, 1000 + i) for i in (6, 7, 9, 11)], dim=1)
    expected = head.call(video, *tokens(1), state(head), ONE)
    torch.testing.assert_close(got.actions, expected.action[0], atol=1e-4, rtol=1e-4)


def test_idle_time_finishes_the_conditioning() -> None:
    session = _session(Savings.only("lazy_conditioning"))
    _feed(session, 1, 0)
    session.chunk(state(session.head))
    turns = 0
    while session.idle():
        turns += 1
    assert turns == 5  # 9 latents, of which the call needed 3; the sixth turn ends it


def test_says_what_is_missing() -> None:
    session = Session(make_head(rows=6), lambda _: tokens(1))
    with pytest.raises(RuntimeError, match="no instruction yet"):
        session.chunk(state(session.head))
    with pytest.raises(ValueError, match="cadence 'often'"):
        session.cadence = "often"
    with pytest.raises(ValueError, match="history is 2"):
        Session(session.head, lambda _: tokens(1), history=2)
    with pytest.raises(ValueError, match="3 frames"):
        Session(session.head, lambda _: tokens(1), frames_per_call=3)
