"""What is worked out between two calls: in order, dropped in time, never waited for."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from wam_ros.policy.afterwork import Afterwork
from wam_ros.policy.base import Afterthought
from wam_ros.policy.cadence import Scheduler

RGB = np.zeros((2, 2, 3), np.uint8)
FOREVER = math.inf


class Bench:
    """An Afterwork on a clock that only moves when a piece says so."""

    def __init__(self, every: float = math.inf) -> None:
        self.time = 0.0
        self.events: list[Any] = []
        self.errors: list[Exception] = []
        self.arrived = threading.Condition()
        self.work = Afterwork(
            lambda c, v: self.note(("surprise", c, v)),
            lambda c, t, rgb: self.note(("frame", c, t)),
            lambda: self.time,
            self.failed,
            every,
        )

    def note(self, event: Any) -> None:
        with self.arrived:
            self.events.append(event)
            self.arrived.notify_all()

    def failed(self, error: Exception) -> None:
        with self.arrived:
            self.errors.append(error)
            self.arrived.notify_all()

    def wait(self, enough: Any) -> None:
        with self.arrived:
            assert self.arrived.wait_for(lambda: enough(), timeout=30), self.events

    def thought(self, count: int, cost: float, surprise: float = 0.5) -> Afterthought:
        def frames() -> Iterator[tuple[float, Any]]:
            for i in range(count):
                self.time += cost
                yield float(i), RGB

        return Afterthought(lambda: surprise, frames())

    def frames(self, context: Any) -> list[float]:
        return [e[2] for e in self.events if e[0] == "frame" and e[1] == context]


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.work.close()


def test_surprise_comes_first_then_the_frames_in_order(bench: Bench) -> None:
    bench.work.start(bench.thought(5, 0.0), FOREVER, "a")
    bench.wait(lambda: len(bench.events) == 6)
    assert bench.events[0] == ("surprise", "a", 0.5)
    assert bench.frames("a") == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert (bench.work.shown, bench.work.dropped) == (5, 0)


def test_nothing_of_the_old_chunk_comes_after_stop_and_stop_does_not_wait(bench: Bench) -> None:
    inside, go = threading.Event(), threading.Event()

    def slow() -> Iterator[tuple[float, Any]]:
        yield 0.0, RGB
        inside.set()
        assert go.wait(30)  # the decoder is at work, and will be for longer than anybody waits
        yield 1.0, RGB
        raise AssertionError("asked for a frame after stop")

    bench.work.start(Afterthought(lambda: 0.1, slow()), FOREVER, "old")
    assert inside.wait(30)
    bench.work.stop()  # returns although the decoder is still at work
    assert not bench.work.rest(0.0)
    bench.work.start(bench.thought(2, 0.0), FOREVER, "skipped")
    bench.work.start(bench.thought(2, 0.0), FOREVER, "new")
    go.set()
    bench.wait(lambda: len(bench.frames("new")) == 2)
    assert bench.frames("old") == [0.0] and bench.frames("skipped") == []
    values = {e[1]: e[2] for e in bench.events if e[0] == "surprise"}
    assert values["old"] == 0.1 and math.isnan(values["skipped"]) and values["new"] == 0.5
    assert len([e for e in bench.events if e[0] == "surprise"]) == 3  # one per call
    assert bench.work.dropped == 2 and not bench.errors
    assert bench.work.rest(30.0)


def test_a_frame_that_would_not_end_in_time_is_not_begun(bench: Bench) -> None:
    bench.work.start(bench.thought(8, 1.0), FOREVER, "measured")
    bench.wait(lambda: len(bench.frames("measured")) == 8)
    begin = bench.time
    bench.work.start(bench.thought(8, 1.0), begin + 3.5, "short")
    bench.work.start(bench.thought(0, 1.0), FOREVER, "end")
    bench.wait(lambda: ("surprise", "end", 0.5) in bench.events)
    assert bench.frames("short") == [0.0, 1.0, 2.0][: len(bench.frames("short"))]
    assert bench.time <= begin + 3.5, "the decoder ran into the next call"


def test_a_busy_machine_is_given_a_glance_now_and_then() -> None:
    bench = Bench(every=1.0)
    try:
        bench.work.start(bench.thought(4, 0.3), FOREVER, "measured")
        bench.wait(lambda: len(bench.frames("measured")) == 4)
        for i in range(12):  # the next call is always due before a frame could be done
            bench.time += 0.25
            bench.work.stop()
            bench.work.start(bench.thought(4, 0.3), bench.time, i)
            bench.wait(lambda i=i: any(e[1] == i for e in bench.events))
            assert bench.work.rest(30.0)
        # Nothing has been shown for 1 s at the fourth call; each glance then takes 1.2 s by itself.
        shown = [i for i in range(12) if bench.frames(i)]
        assert shown == [3, 7, 11]
        assert all(len(bench.frames(i)) == 4 for i in shown)  # whole, or not at all
    finally:
        bench.work.close()


def test_a_glance_outlasts_the_next_call_but_not_the_backend() -> None:
    bench = Bench(every=0.0)
    inside, go = threading.Semaphore(0), threading.Semaphore(0)

    def slow() -> Iterator[tuple[float, Any]]:
        for i in range(4):
            inside.release()
            assert go.acquire(timeout=30)
            yield float(i), RGB

    try:
        bench.work.start(Afterthought(lambda: 0.1, slow()), bench.time, "glance")
        assert inside.acquire(timeout=30)
        bench.work.stop()  # the next call
        go.release()
        assert inside.acquire(timeout=30)
        assert bench.frames("glance") == [0.0]
        bench.work.stop(glance=True)  # the backend goes
        go.release()
        assert bench.work.rest(30.0)
        assert bench.frames("glance") == [0.0]
    finally:
        bench.work.close()


def test_one_slow_frame_does_not_end_it_for_good(bench: Bench) -> None:
    bench.work.start(bench.thought(1, 100.0), FOREVER, "slow")
    bench.wait(lambda: bench.frames("slow") == [0.0])
    for i in range(200):
        bench.work.start(bench.thought(1, 0.1), bench.time + 1.0, i)
        bench.wait(lambda i=i: any(e[1] == i for e in bench.events))
    assert bench.work.shown > 1


def test_a_decoder_that_fails_is_reported_and_the_next_one_runs(bench: Bench) -> None:
    def broken() -> Iterator[tuple[float, Any]]:
        yield 0.0, RGB
        raise MemoryError("no room for the decoder")

    bench.work.start(Afterthought(lambda: 1 / 0, broken()), FOREVER, "first")
    bench.wait(lambda: len(bench.errors) == 1)
    bench.work.start(Afterthought(lambda: 0.2, broken()), FOREVER, "second")
    bench.wait(lambda: len(bench.errors) == 2)
    bench.work.start(bench.thought(1, 0.0), FOREVER, "third")
    bench.wait(lambda: bench.frames("third") == [0.0])
    kinds = [type(e).__name__ for e in bench.errors]
    assert kinds == ["ZeroDivisionError", "MemoryError"]
    assert [e[1] for e in bench.events if e[0] == "surprise"] == ["first", "second", "third"]


@pytest.mark.parametrize(("cadence", "due"), [("sync", 11.6), ("async", 11.3), ("sliding", 10.143)])
def test_the_scheduler_tells_when_the_next_call_is_due(cadence: str, due: float) -> None:
    scheduler = Scheduler(cadence, 1.6, 0.143)
    assert scheduler.next_call(0.2) == -math.inf
    scheduler.called(10.0)
    scheduler.delivered(11.6)
    assert scheduler.next_call(0.2) == pytest.approx(due)
    assert not scheduler.decide(due - 0.01, 0.2, True).call
    assert scheduler.decide(due + 0.01, 0.2, True).call
