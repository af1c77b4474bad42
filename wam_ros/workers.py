"""A pool of processes for long work: stopped at once, and clear about why it cannot begin."""

from __future__ import annotations

import multiprocessing as mp
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from wam_ros.children import end_with_parent

_T = TypeVar("_T")
_refused: str | None = None


class Workers:
    """Processes that `worker_pool` started."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._pool = pool

    def submit(self, work: Callable[..., _T], *arguments: Any) -> Future[_T]:
        """Have ``work(*arguments)`` done; RuntimeError tells why ``begin`` failed, if it did."""
        return self._pool.submit(_do, work, *arguments)


@contextmanager
def worker_pool(
    jobs: int, begin: Callable[..., None] | None = None, arguments: tuple[Any, ...] = ()
) -> Iterator[Workers]:
    """Start ``jobs`` processes, each of which calls ``begin(*arguments)`` first.

    They are spawned, since what torch, GL or DDS have running here does not survive a fork. When
    the block is left by an exception, Ctrl-C included, work that waits is dropped and work under
    way is ended where it is: whoever writes files has to be able to tell a half-written one.
    """
    before = set(mp.active_children())
    pool = ProcessPoolExecutor(jobs, mp.get_context("spawn"), _start, (begin, arguments))
    try:
        yield Workers(pool)
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for child in set(mp.active_children()) - before:
            child.terminate()
        raise
    pool.shutdown()


def _start(begin: Callable[..., None] | None, arguments: tuple[Any, ...]) -> None:
    global _refused
    end_with_parent()
    # A terminal sends Ctrl-C to everybody; here it would end one piece of work and not the rest.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if begin is None:
        return
    try:
        begin(*arguments)
    except Exception as err:  # an initializer's own would be lost, and only "broken" be told
        known = isinstance(err, OSError | RuntimeError | ValueError)
        _refused = str(err) if known else f"{type(err).__name__}: {err}"


def _do(work: Callable[..., _T], *arguments: Any) -> _T:
    if _refused is not None:  # in words: not every exception comes through to another process
        raise RuntimeError(_refused)
    return work(*arguments)
