"""Where threads stand in the kernel's queue, without any privilege."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import threading

SLICE = 100_000
"""Nanoseconds; the shortest slice the kernel grants."""
_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}
# struct sched_attr, sched(7): size, policy, flags, nice, priority, runtime, deadline, period.
_ATTR = struct.Struct("<IIQiIQQQ")


def short_slice(nanoseconds: int = SLICE) -> bool:
    """Ask for short time slices for the calling thread and those it starts; False when refused.

    A thread that asks for little at a time is let in at once, even before another has used up its
    slice; with the default slice it waits up to 4 ms for that. It takes Linux 6.12 (EEVDF with
    slices); older kernels accept the request and ignore it.
    """
    number = _SCHED_SETATTR.get(platform.machine())
    if number is None or os.sched_getscheduler(0) != os.SCHED_OTHER:
        return False
    nice = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    attr = _ATTR.pack(_ATTR.size, os.SCHED_OTHER, 0, nice, 0, nanoseconds, 0, 0)
    call = ctypes.CDLL(None, use_errno=True).syscall
    return bool(call(number, 0, ctypes.create_string_buffer(attr, _ATTR.size), 0) == 0)


def behave_as_batch(nice: int = 0) -> None:
    """Let the calling thread wait its turn: it preempts nobody when it wakes.

    ``nice`` (0 to 19) takes computing time from it, too, where others want it.
    """
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    if nice > 0:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), nice)
