"""Requests between two ticks: what is answered was done, and what is refused was not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="the loop ships with the nodes")

from wam_ros.nodes.control_loop import ControlLoop


@pytest.fixture
def loop() -> Iterator[Callable[..., ControlLoop]]:
    started: list[ControlLoop] = []

    def start(work: Any = lambda *_: None, **given: Any) -> ControlLoop:
        started.append(ControlLoop(work, 0.002, **given))
        started[-1].start()
        return started[-1]

    yield start
    for each in started:
        each.end()


def test_a_request_that_is_under_way_when_time_is_up_is_waited_for(loop: Any) -> None:
    done = []

    def slowly() -> str:
        time.sleep(0.5)
        done.append("armed")
        return "armed"

    running = loop()
    assert running.ask(slowly, timeout=0.4) == "armed" and done == ["armed"]


def test_what_was_not_done_in_time_is_not_done_later(loop: Any) -> None:
    busy, free, done = threading.Event(), threading.Event(), []
    running = loop(lambda *_: (busy.set(), free.wait()))
    busy.wait()
    with pytest.raises(TimeoutError, match="does not answer"):
        running.ask(lambda: done.append("armed"), timeout=0.1)
    with pytest.raises(TimeoutError):
        running.ask(lambda: done.append("stopped"), timeout=0.1, late=True)
    free.set()
    running.ask(lambda: None)
    assert done == ["stopped"]


def test_a_request_that_fails_tells_both_sides(loop: Any) -> None:
    faults: list[str] = []
    running = loop(failed=faults.append)
    with pytest.raises(ZeroDivisionError):
        running.ask(lambda: 1 / 0)
    assert faults == ["ZeroDivisionError: division by zero"]
    assert running.ask(lambda: "still there") == "still there"
