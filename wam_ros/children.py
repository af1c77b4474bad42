"""Child processes that do not outlive the process that started them."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing as mp
import os
import signal

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def end_with_parent() -> None:
    """Have the kernel end this process as soon as its parent has ended, however that happened.

    A pool's processes wait for work, and would wait for ever after a parent that was killed. Linux
    only; elsewhere nothing happens.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    parent = mp.parent_process()
    if parent is not None and os.getppid() != parent.pid:  # it ended before it could be asked for
        os._exit(1)
