"""The 500 Hz thread: absolute deadlines, one owner of the execution core, its own stop-watch."""

from __future__ import annotations

import ctypes
import gc
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from wam_ros.execution.metrics import Window

_MCL_CURRENT_FUTURE = 3


def make_fifo(priority: int, thread: int = 0) -> str:
    """Run a thread (native id; 0: the calling one) under SCHED_FIFO; why not, or ''."""
    try:
        os.sched_setscheduler(thread, os.SCHED_FIFO, os.sched_param(priority))
    except (PermissionError, OSError) as err:
        return f"SCHED_FIFO {priority} refused ({err}); see `wam doctor` for the limits file"
    return ""


def may_fifo(priority: int) -> bool:
    """Whether this process may use that priority (RLIMIT_RTPRIO or CAP_SYS_NICE)."""
    answer: list[str] = []
    probe = threading.Thread(target=lambda: answer.append(make_fifo(priority)))
    probe.start()
    probe.join()
    return answer == [""]


def make_others_fifo(priority: int, loop: threading.Thread) -> None:
    """Run every other thread of this process under SCHED_FIFO, too.

    The middleware's threads and the ROS executor hold locks, the interpreter's among them, that
    the control loop needs. At ordinary priority a busy machine pushes them aside while they do,
    and the loop waits for a time slice of somebody else.
    """
    for task in os.listdir("/proc/self/task"):
        if int(task) != loop.native_id:
            make_fifo(priority, int(task))


class ControlLoop(threading.Thread):
    """Calls ``work(tick, monotonic)`` once a period and requests of other threads in between.

    Only this thread touches the execution core, so there is no lock to wait for; others use `ask`.
    Late periods are skipped, never sent in a burst. ``failed(reason)`` is called when ``work``
    raises.

    Attributes
    ----------
    lateness
        Seconds between deadline and wake-up, last 5000 ticks.
    spent
        Seconds of work per tick, likewise.
    missed
        Periods skipped so far.
    fifo, problem
        Whether the thread runs under SCHED_FIFO, and why not when it was asked to.
    """

    def __init__(
        self,
        work: Callable[[int, float], None],
        period: float,
        priority: int = 0,
        failed: Callable[[str], None] = lambda _: None,
    ) -> None:
        super().__init__(name="control", daemon=True)
        self._work = work
        self._period = period
        self._priority = priority
        self._failed = failed
        self._requests: deque[tuple[Callable[[], Any], list[Any], threading.Event]] = deque()
        self._over = threading.Event()
        self.lateness, self.spent = Window(5000), Window(5000)
        self.missed = 0
        self.problem, self.fifo = "", False

    def ask(self, request: Callable[[], Any], timeout: float = 1.0, late: bool = False) -> Any:
        """Run ``request()`` between two ticks and return its result.

        What could not be done in time is not done later, unless ``late`` says that it may.

        Raises
        ------
        TimeoutError
            The loop did not get to it in ``timeout`` seconds.
        Exception
            Whatever ``request`` raised; the loop's ``failed`` is called, too.
        """
        box: list[Any] = []
        done = threading.Event()
        entry = (request, box, done)
        self._requests.append(entry)
        if not done.wait(timeout):
            if not late:
                try:
                    self._requests.remove(entry)
                except ValueError:  # it is being done just now
                    done.wait(timeout)
            if not done.is_set():
                raise TimeoutError("the control loop does not answer")
        if isinstance(box[0], Exception):
            raise box[0]
        return box[0]

    def _do(self, request: Callable[[], Any], box: list[Any]) -> None:
        try:
            box.append(request())
        except Exception as err:
            box.append(err)
            self._failed(f"{type(err).__name__}: {err}")

    def end(self) -> None:
        """Stop after the present tick."""
        self._over.set()
        self.join(timeout=1.0)

    def run(self) -> None:
        """Tick until `end`."""
        if self._priority > 0:
            self.problem = make_fifo(self._priority)
            self.fifo = not self.problem
            # A page fault costs as much as several ticks.
            ctypes.CDLL(None).mlockall(_MCL_CURRENT_FUTURE)
        # Collections of a long-lived heap take milliseconds; nothing in the loop needs them.
        gc.collect()
        gc.freeze()
        gc.disable()
        period = self._period
        deadline = time.monotonic() + period
        tick = 0
        while not self._over.is_set():
            delay = deadline - time.monotonic()
            if delay > 0:
                time.sleep(delay)
            now = time.monotonic()
            self.lateness.add(now - deadline)
            try:
                while self._requests:
                    request, box, done = self._requests.popleft()
                    self._do(request, box)
                    done.set()
                self._work(tick, now)
            except Exception as err:  # the thread must live on to report it
                self._failed(f"{type(err).__name__}: {err}")
            end = time.monotonic()
            self.spent.add(end - now)
            tick += 1
            deadline += period
            behind = int((end - deadline) / period)
            if behind > 0:
                self.missed += behind
                tick += behind
                deadline += behind * period
