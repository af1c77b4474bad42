"""One instruction from start to outcome, without ROS."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wam_ros.policy.task_run import InstructionRun, Outcome, Settings, Sight

TEXT = "touch the red block"
STILL = np.zeros(3)
BASE = Sight(0.0, instruction=TEXT, state=STILL)
STALL = Settings(stall_after=5.0)


def play(run: InstructionRun, sights: list[Sight]) -> Outcome | None:
    for sight in sights:
        run.update(sight)
    return run.outcome


def over(seconds: float, step: float = 0.1, begin: float = 0.0, **changed) -> list[Sight]:
    count = round(seconds / step)
    return [replace(BASE, time=begin + step * (i + 1), **changed) for i in range(count)]


def moving(seconds: float, begin: float = 0.0, **changed) -> list[Sight]:
    return [
        replace(s, state=STILL + 0.1 * (s.time - begin), **changed)
        for s in over(seconds, begin=begin)
    ]


def start(deadline: float = 0.0, settings: Settings = STALL) -> InstructionRun:
    return InstructionRun(TEXT, deadline, BASE, settings)


def test_the_judges_success_ends_it_once_it_was_seen_to_say_not_yet() -> None:
    run = start()
    assert play(run, moving(1.0, judged=True, success=True)) is None  # about the run before
    assert play(run, moving(1.0, begin=1.0, judged=True, progress=0.5)) is None
    assert run.progress == 0.5
    assert play(run, moving(1.0, begin=2.0, judged=True, success=True)) is Outcome.SUCCEEDED


def test_not_yet_counts_when_it_was_said_between_two_looks() -> None:
    run = start()
    assert play(run, moving(1.0, judged=True, success=True)) is None
    run.not_yet()
    assert play(run, moving(0.1, begin=1.0, judged=True, success=True)) is Outcome.SUCCEEDED


def test_without_a_judge_it_runs_to_its_deadline() -> None:
    run = start(deadline=3.0)
    assert play(run, moving(2.9)) is None
    assert math.isnan(run.progress)
    assert play(run, moving(0.2, begin=2.9)) is Outcome.DEADLINE
    assert run.elapsed == pytest.approx(3.0, abs=0.11)


def test_the_operator_ends_it() -> None:
    run = start(deadline=3.0)
    play(run, moving(1.0))
    run.end(Outcome.SUCCEEDED, "confirmed by the operator")
    assert play(run, moving(9.0, begin=1.0)) is Outcome.SUCCEEDED  # the deadline comes too late
    assert run.message == "confirmed by the operator"


@pytest.mark.parametrize(
    ("changed", "outcome", "words"),
    [
        ({"instruction": "another"}, Outcome.PREEMPTED, "another"),
        ({"instruction": ""}, Outcome.CANCELLED, "cleared"),
        ({"phase": "error", "reason": "no GPU"}, Outcome.ERROR, "no GPU"),
        ({"active": False}, Outcome.ERROR, "not active"),
        ({"understood": False, "reason": "what?"}, Outcome.REFUSED, "what"),
        ({"mode": "estopped", "executor_reason": "button"}, Outcome.STOPPED, "button"),
        ({"mode": "disarmed", "executor_reason": "following error"}, Outcome.STOPPED, "following"),
    ],
)
def test_what_ends_it_says_why(changed, outcome: Outcome, words: str) -> None:
    run = start()
    assert play(run, moving(1.0)) is None
    assert play(run, moving(0.1, begin=1.0, **changed)) is outcome
    assert words in run.message


def test_an_executor_that_was_never_armed_gets_a_moment() -> None:
    run = start()
    assert play(run, over(2.9, mode="disarmed", executor_reason="not armed yet")) is None
    assert play(run, over(0.3, begin=2.9, mode="disarmed")) is Outcome.STOPPED
    run = start()
    assert play(run, over(2.0, mode="disarmed") + moving(1.0, begin=2.0)) is None


def test_rows_that_move_nothing_stall() -> None:
    run = start()
    assert play(run, over(4.9)) is None
    assert play(run, over(0.3, begin=4.9)) is Outcome.STALLED
    assert "tracking" in run.message


@pytest.mark.parametrize("model", [0.6, 3.0, 30.0])
def test_a_slow_model_is_no_stall_and_a_still_one_is(model: float) -> None:
    """sync: rows of 0.8 s that stay where they are, then ``model`` seconds of thinking."""
    run = start()
    now, tracked = 0.0, 0.0
    while run.outcome is None:
        thinking = over(model, begin=now, thinking=True, mode="holding")
        assert play(run, thinking) is None, "waiting for the model must not count"
        now += model
        play(run, over(0.8, begin=now))
        now, tracked = now + 0.8, tracked + 0.8
    assert run.outcome is Outcome.STALLED
    assert 5.0 <= tracked < 6.6


def test_holding_without_a_model_at_work_counts() -> None:
    run = start()
    assert play(run, over(6.0, mode="holding", executor_reason="camera lost")) is Outcome.STALLED
    assert "camera lost" in run.message


def test_loading_never_stalls_and_the_deadline_goes_on() -> None:
    run = start(deadline=60.0)
    assert play(run, over(50.0, phase="loading", mode="holding")) is None
    assert run.status == "policy loading"
    assert play(run, over(11.0, begin=50.0, phase="loading")) is Outcome.DEADLINE


def test_progress_without_motion_of_the_joints_is_no_stall() -> None:
    run = start()
    sights = [replace(s, judged=True, progress=s.time / 60.0) for s in over(50.0)]
    assert play(run, sights) is None
    stuck = over(6.0, begin=50.0, judged=True, progress=50.0 / 60.0)
    assert play(run, stuck) is Outcome.STALLED


def test_stall_detection_can_be_off() -> None:
    assert play(start(settings=Settings(stall_after=0.0)), over(500.0, step=1.0)) is None


def test_chunks_are_counted_from_the_start() -> None:
    run = InstructionRun(TEXT, 0.0, replace(BASE, chunks=40))
    run.update(replace(BASE, time=1.0, chunks=43))
    assert run.chunks == 3


SIGHTS = st.builds(
    Sight,
    time=st.floats(0.0, 1.0),  # a step; summed up below
    phase=st.sampled_from(["loading", "warming", "ready", "running", "running", "error"]),
    active=st.sampled_from([True, True, True, False]),
    instruction=st.sampled_from([TEXT, TEXT, TEXT, TEXT, "", "other"]),
    understood=st.sampled_from([True, True, True, False]),
    thinking=st.booleans(),
    mode=st.sampled_from(["tracking", "holding", "stopping", "disarmed", "estopped", ""]),
    state=st.none() | st.lists(st.floats(-3, 3), min_size=3, max_size=3).map(np.array),
    judged=st.booleans(),
    success=st.booleans(),
    progress=st.floats(0, 1) | st.just(math.nan),
    chunks=st.integers(0, 9),
)


def timed(sights: list[Sight]) -> list[Sight]:
    times = np.cumsum([s.time for s in sights])
    return [replace(s, time=float(t)) for s, t in zip(sights, times)]


@given(st.lists(SIGHTS, max_size=60), st.floats(0.1, 20.0))
def test_it_ends_once_and_never_after_its_deadline(sights: list[Sight], deadline: float) -> None:
    run = start(deadline=deadline)
    first: tuple[Outcome, str] | None = None
    for sight in timed(sights):
        outcome = run.update(sight)
        if first is None and outcome is not None:
            first = (outcome, run.message)
            assert run.message
        assert first is None or (run.outcome, run.message) == first
        assert outcome is not None or sight.time < deadline
        assert run.idle <= run.elapsed + 1e-9


@given(st.lists(SIGHTS, max_size=60))
def test_only_a_judge_or_an_operator_says_succeeded(sights: list[Sight]) -> None:
    run, seen = start(), False
    for sight in timed(sights):
        before = run.outcome
        if before is None and run.update(sight) is Outcome.SUCCEEDED:
            assert sight.success and sight.judged and seen
        seen = seen or (sight.judged and not sight.success)


@given(st.lists(SIGHTS, max_size=60))
def test_time_spent_waiting_for_a_model_is_never_counted(sights: list[Sight]) -> None:
    run, counted, last = start(), 0.0, 0.0
    for sight in timed(sights):
        if run.outcome is None:
            run.update(sight)
            waits = sight.thinking and sight.mode != "tracking"
            counted += 0.0 if waits else sight.time - last
            assert run.idle <= counted + 1e-9
            assert run.outcome is not Outcome.STALLED or counted >= 5.0 - 1e-9
        last = sight.time
