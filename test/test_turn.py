"""The bookkeeping of one call after the other, without a node and without a rollout."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wam_ros.contract import load_contract
from wam_ros.contract.data import ActionChunk, Observation
from wam_ros.execution.settings import WARM_UP
from wam_ros.policy.progress import Progress
from wam_ros.policy.turn import FIRST, MAX_OBSERVATION_AGE, Call, Turn

CONTRACT = load_contract("agibot_g1")
POLICY: Any = SimpleNamespace(frame_rows=(-12, 0))


def seen(t: float) -> Observation:
    return Observation(t, {}, np.zeros(len(CONTRACT.state_names)))


def turn(cadence: str = "async", instruction: str = "touch the red block") -> Turn:
    made = Turn(CONTRACT, cadence, 1.0 / 7.0)
    made.say(instruction)
    return made


def answered(t: Turn, call: Call, now: float) -> ActionChunk:
    rows = np.zeros((CONTRACT.rates.horizon, len(CONTRACT.action_names)))
    kinds = ("position",) * rows.shape[1]
    t0 = call.window.newest.t0
    plain = ActionChunk(t0, CONTRACT.rates.step_period, rows, CONTRACT.action_names, kinds)
    return t.stamp(plain, call, now, now + 0.1)


def test_a_call_needs_an_observation_that_is_new_and_not_old() -> None:
    t = turn()
    assert t.begin(10.0, True) is None
    t.see(seen(9.0))
    assert t.begin(9.0 + MAX_OBSERVATION_AGE + 0.01, True) is None
    assert t.begin(9.1, True) is not None
    t.say("touch the blue block")  # due at once, yet the same frame is not shown twice
    assert t.begin(9.2, True) is None
    t.see(seen(9.2))
    assert t.begin(9.2, True) is not None


def test_a_clock_that_is_set_back_is_followed() -> None:
    t = turn()
    t.see(seen(100.0))
    assert t.begin(100.0, True) is not None
    t.see(seen(3.0))
    t.say("touch the blue block")
    assert len(t.frames) == 1
    assert t.begin(3.0, True) is not None


@pytest.mark.parametrize("cadence", ["sync", "async", "sliding"])
def test_a_clock_that_is_set_back_in_the_midst_of_an_instruction(cadence: str) -> None:
    t = turn(cadence)
    t.see(seen(100.0))
    assert t.begin(100.0, True) is not None
    call = t.call(POLICY, {}, cadence)
    t.deliver(answered(t, call, 100.0), 100.1, False)
    t.see(seen(3.0))
    assert t.begin(3.0, False) is not None


def test_an_answer_belongs_to_the_saying_and_not_to_the_words() -> None:
    t = turn(instruction="touch the red block")
    t.see(seen(1.0))
    assert t.begin(1.0, True) is not None
    call = t.call(POLICY, {}, "async")
    assert t.answers(call)
    t.say("touch the blue block")
    t.say("touch the red block")
    assert not t.answers(call)


def test_the_first_call_of_an_instruction_is_fresh_and_its_chunk_says_so() -> None:
    t = turn()
    t.see(seen(1.0 - 12 * CONTRACT.rates.step_period))
    t.see(seen(1.0))
    assert t.begin(1.0, True) is not None
    first = t.call(POLICY, {}, "async")
    assert first.fresh and not t.fresh
    assert len(first.window.frames) == 2 and first.window.cadence == "async"
    chunk = answered(t, first, 1.0)
    assert chunk.context_flags == FIRST and chunk.sequence == 1
    assert chunk.instruction == first.instruction
    t.deliver(chunk, 1.1, True)
    t.progress.tell(1.0, 1, 7.0, 1.0)
    later = t.call(POLICY, {}, "async")
    assert not later.fresh and answered(t, later, 2.0).context_flags == 0
    assert later.window.executed_rows == 7.0


def test_rows_of_another_chunk_do_not_count() -> None:
    t = turn()
    t.see(seen(1.0))
    t.sequence = 4
    t.progress.tell(1.0, 3, 7.0, 1.0)
    window = t.call(POLICY, {}, "async").window
    assert window.executed_rows == 0.0 and window.rows == ()


def test_rows_are_those_at_the_time_of_the_frame_not_of_the_call() -> None:
    t = turn()
    for stamp in (0.6, 1.0):
        t.see(seen(stamp))
    t.sequence = 1
    for stamp, rows in ((0.9, 15.0), (1.0, 18.0), (1.1, 21.0)):  # 10 Hz, and 0.07 s after the frame
        t.progress.tell(stamp, 1, rows, 1.0)
    window = t.call(POLICY, {}, "async").window
    assert window.executed_rows == pytest.approx(18.0)
    assert window.rows == pytest.approx((6.0, 18.0))


def test_an_arm_that_rests_consumes_no_rows() -> None:
    t = turn("sync")
    period = CONTRACT.rates.step_period
    rows = np.clip(np.arange(-6, 40), 0, 24)  # waits, goes, rests
    for i, row in enumerate(rows):
        t.progress.tell(1.0 + i * period, 1, float(row), 0.0 if row == 24 else 1.0)
    at = [1.0 + i * period for i in (8, 20, 30, 45)]
    assert t.progress.at(1, at) == pytest.approx((2.0, 14.0, 24.0, 24.0))
    assert t.progress.at(1, [1.0 + 60 * period]) == pytest.approx((24.0,))


def _moments(latest: float) -> st.SearchStrategy[float]:
    """Times that can be told apart when they are stamps."""
    return st.integers(0, round(latest * 1e6)).map(lambda us: us * 1e-6)


@settings(max_examples=100, deadline=None)
@given(
    begin=_moments(0.4),
    heard=st.lists(_moments(2.0), min_size=1, max_size=20, unique=True),
    times=st.lists(_moments(2.2), min_size=1, max_size=8),
)
def test_rows_between_what_was_heard_are_right(begin, heard, times) -> None:
    """The true course is a ramp of 30 rows a second from ``begin``; other chunks come after 1.5."""
    progress = Progress(1 / 30)
    heard = sorted(heard)
    for t in heard:
        mine = begin <= t < 1.5
        progress.tell(
            5.0 + t, 2 if mine else 1 + 2 * (t >= 1.5), 30 * (t - begin) if mine else 4.0, 1.0
        )
    known = [t for t in heard if begin <= t < 1.5]
    found = progress.at(2, [5.0 + t for t in times])
    if not known:
        assert found == ()
        return
    until = min((t for t in heard if t >= 1.5), default=9.0)
    assert found == pytest.approx([30 * (min(t, until) - begin) for t in times], abs=1e-6)


def test_a_clock_that_is_set_back_starts_progress_anew() -> None:
    progress = Progress(1 / 30)
    progress.tell(100.0, 7, 5.0, 1.0)
    progress.tell(99.9, 7, 2.0, 1.0)  # late: not newer
    assert progress.at(7, [100.0]) == (5.0,)
    progress.tell(3.0, 7, 1.0, 0.0)
    assert progress.at(7, [3.0]) == (1.0,)


@pytest.mark.parametrize(
    ("cadence", "resting", "flags", "late"),
    [
        ("async", True, WARM_UP, 0.7),
        ("async", False, WARM_UP, 0.0),
        ("async", True, 0, 0.0),
        ("sync", False, 0, 0.7),
    ],
)
def test_rows_start_on_arrival_in_sync_and_at_the_first_chunk_at_rest(
    cadence: str, resting: bool, flags: int, late: float
) -> None:
    t = turn(cadence)
    t.see(seen(1.0))
    t.fresh = bool(flags)
    call = t.call(POLICY, {}, cadence)
    chunk = answered(t, call, 1.0)
    assert t.deliver(chunk, 1.7, resting) == pytest.approx(late)
    assert t.scheduler.next_call(0.0) == pytest.approx(
        chunk.t_end + late - (0.1 if cadence == "async" else 0.0)
    )


def test_unknown_cadence_is_named() -> None:
    with pytest.raises(ValueError, match="'often'"):
        Turn(CONTRACT, "often", 0.1)
