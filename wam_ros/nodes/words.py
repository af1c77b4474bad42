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

_ONE_WORD = 50_000_000
"""A goal's words (ns) go out on the topic this long after their stamp, at most."""


def wall_stamp(nanoseconds: int) -> Time:
    """Nanoseconds since 1970 as a message stamp."""
    return Time(sec=nanoseconds // 1_000_000_000, nanosec=nanoseconds % 1_000_000_000)


def nanoseconds(stamp: Time) -> int:
    """A message stamp as nanoseconds, exactly."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


class Words:
    """Sorts out what is news.

    Parameters
    ----------
    since
        Wall clock (ns since 1970) before which nothing a policy repeats is news.
    """

    def __init__(self, since: int = 0) -> None:
        self._at = since
        self._heard: tuple[str, int] | None = None

    def mark(self) -> None:
        """Note that something else was decided now: what was said before is no longer news."""
        self._at = max(self._at, time.time_ns())

    def said(self, message: Any, said_at: int) -> str | None:
        """The text of a message on `instruction`; ``said_at`` in ns since 1970.

        Always news, whatever the sender's clock says; but for a message that the middleware
        delivers after its echo, which might undo what was decided between the two.
        """
        text = str(message.data).strip()
        if self._heard is not None:
            echoed, stamp = self._heard
            if text == echoed and 0 <= said_at - stamp <= _ONE_WORD:
                return None
        self._at = max(self._at, said_at)
        return text

    def echoed(self, message: Any) -> str | None:
        """The instruction in a `policy_state`; None if it is no news, or none was ever given."""
        said_at = nanoseconds(message.instruction_stamp)
        if said_at <= self._at:
            return None
        text = str(message.instruction).strip()
        self._at, self._heard = said_at, (text, said_at)
        return text
