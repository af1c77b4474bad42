"""Which instruction is the newest, for nodes that can be told by two ways.

A reader that discovered its writer a moment ago misses what was published before: an executor that
missed the instruction after a hold would refuse the policy's chunks for ever. So an instruction
goes two ways: on `instruction`, and in `policy_state`, which is latched. The second is late, and
must not undo what was said meanwhile; both carry the wall clock of whoever said it.
"""

from __future__ import annotations

import time
from typing import Any

from builtin_interfaces.msg import Time


def wall_stamp(nanoseconds: int) -> Time:
    """Nanoseconds since 1970 as a message stamp."""
    return Time(sec=nanoseconds // 1_000_000_000, nanosec=nanoseconds % 1_000_000_000)


class Words:
    """Sorts out what is news.

    Parameters
    ----------
    since
        Wall clock (ns since 1970) before which nothing a policy repeats is news.
    """

    def __init__(self, since: int = 0) -> None:
        self._at = since

    def mark(self) -> None:
        """Note that something else was decided now: what was said before is no longer news."""
        self._at = max(self._at, time.time_ns())

    def said(self, message: Any, said_at: int) -> str:
        """The text of a message on `instruction`, which always is; ``said_at`` in ns since 1970."""
        self._at = max(self._at, said_at)
        return str(message.data).strip()

    def echoed(self, message: Any) -> str | None:
        """The instruction in a `policy_state`; None if it is no news, or none was ever given."""
        stamp = message.instruction_stamp
        said_at = int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)
        if said_at <= self._at:
            return None
        self._at = said_at
        return str(message.instruction).strip()
