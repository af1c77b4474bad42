"""The keyboard view of `wam record`: one key, one act, and always the state in sight."""

from __future__ import annotations

import contextlib
import select
import sys
import termios
import tty
from collections.abc import Iterator
from typing import Protocol

HELP = "space start/stop   s success   f failure   d discard   u discard last   q quit"


class Client(Protocol):
    """What the view needs of a recorder (see `wam_ros.nodes.record_client`)."""

    status: dict[str, str]

    def start(self, instruction: str = "") -> tuple[bool, str]:
        """Begin an episode."""
        ...

    def stop(self, verdict: str, note: str = "") -> tuple[bool, str]:
        """End or judge an episode."""
        ...


class Keys:
    """Turns keys into calls.

    Space starts an episode; during one, space asks for the verdict, which s, f or d gives (they
    also end the episode at once). After an episode s and f correct its verdict, u discards it.
    """

    def __init__(self, client: Client, instruction: str = "") -> None:
        self._client, self._instruction = client, instruction
        self.message = ""
        self.asking = False

    @property
    def recording(self) -> bool:
        """Whether the recorder says that an episode runs."""
        return self._client.status.get("recording") == "true"

    def press(self, key: str) -> bool:
        """Act on a key; False when the person wants to leave."""
        if key == "q":
            if self.recording:
                self.message = "an episode is running: end it with s, f or d first"
                return True
            return False
        if key == " ":
            if not self.recording:
                self._say(self._client.start(self._instruction))
            else:
                self.asking = True
                self.message = "how did it go? s success, f failure, d discard"
        elif key in "sf":
            self._say(self._client.stop("success" if key == "s" else "failure"))
        elif key == "d":
            if self.recording:
                self._say(self._client.stop("discard"))
            else:
                self.message = "nothing is being recorded; u discards the last episode"
        elif key == "u":
            if self.recording:
                self.message = "an episode is running; d discards it"
            else:
                self._say(self._client.stop("discard"))
        else:
            self.message = HELP
        return True

    def _say(self, answer: tuple[bool, str]) -> None:
        self.asking = False
        self.message = answer[1] if answer[0] else f"NOT DONE: {answer[1]}"

    def lines(self) -> list[str]:
        """The view as text: state, what to say, warnings, keys."""
        s = self._client.status
        if not s:
            return ["waiting for the recorder ...", HELP]
        lost = int(s.get("lost", "0")) + int(s.get("overflow", "0"))
        name = s.get("path", "").rsplit("/", 1)[-1]
        state = (
            f"● REC {float(s.get('seconds', '0')):6.1f} s  {float(s.get('megabytes', '0')):8.1f} MB"
            f"  {s.get('messages', '0')} messages, {lost} lost  {name}"
            if self.recording
            else f"○ ready, {s.get('episodes', '0')} episodes recorded"
        )
        instruction = self._instruction or s.get("instruction", "") or "(none)"
        out = [state, f"instruction: {instruction}"]
        if self.message:
            out.append(self.message)
        out += [f"! {w}" for w in s.get("warnings", "").splitlines()[:6]]
        return [*out, HELP]


@contextlib.contextmanager
def raw_keys() -> Iterator[None]:
    """Deliver single keys without Enter; the terminal is as before afterwards."""
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    try:
        tty.setcbreak(fd)
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


def pressed() -> str:
    """A key that waits on standard input, or an empty text."""
    ready, _, _ = select.select([sys.stdin], [], [], 0.0)
    return sys.stdin.read(1) if ready else ""
