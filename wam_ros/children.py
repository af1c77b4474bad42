"""Child processes that do not outlive the process that started them."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing as mp
import os
import signal

SUPERVISOR = "WAM_ROS_SUPERVISOR"
"""Environment variable that tells a child of `supervisor` the process id of its parent."""
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def _signal_when_parent_ends(number: signal.Signals) -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)


def stop_with_supervisor() -> None:
    """Have SIGTERM sent to this process when the supervisor that started it has been killed.

    Otherwise the graph would go on moving the robot with nobody left to end it. To be called once
    the process handles SIGTERM; without a supervisor, as under `ros2 launch`, nothing happens.
    """
    supervisor = os.environ.pop(SUPERVISOR, "")
    if supervisor:
        _signal_when_parent_ends(signal.SIGTERM)
        if os.getppid() != int(supervisor):  # it ended before it could be asked for
            os.kill(os.getpid(), signal.SIGTERM)


def end_with_parent() -> None:
    """Have the kernel end this process as soon as its parent has ended, however that happened.

    A pool's processes wait for work, and would wait for ever after a parent that was killed. Linux
    only; elsewhere nothing happens.
    """
    _signal_when_parent_ends(signal.SIGKILL)
    parent = mp.parent_process()
    if parent is not None and os.getppid() != parent.pid:  # it ended before it could be asked for
        os._exit(1)
