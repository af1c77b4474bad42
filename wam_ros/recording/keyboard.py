"""The keys of `wam record`: one key, one act. What is on the screen is `screen`'s."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import termios
import tty
from collections.abc import Iterator
from typing import Protocol


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
        self._asked = False

    @property
    def asking(self) -> bool:
        """Whether space was pressed to stop and the verdict is still open."""
        return self._asked and self.recording

    @property
    def recording(self) -> bool:
        """Whether the recorder says that an episode runs."""
        return self._client.status.get("recording") == "true"

    def press(self, key: str) -> bool:
        """Act on a key; False when the person wants to leave."""
        self.message = ""
        if key == "q":
            if self.recording:
                self.message = "an episode is running: end it with s, f or d first"
                return True
            return False
        if key == " ":
            if self.recording:
                self._asked = True
            else:
                self._say(self._client.start(self._instruction), recording=True)
        elif key in "sf":
            self._say(self._client.stop("success" if key == "s" else "failure"), recording=False)
        elif key == "d":
            if self.recording:
                self._say(self._client.stop("discard"), recording=False)
            else:
                self.message = "nothing is being recorded; u discards the last episode"
        elif key == "u":
            if self.recording:
                self.message = "an episode is running; d discards it"
            else:
                self._say(self._client.stop("discard"), recording=False)
        else:
            self.message = "no such key"
        return True

    def say(self, text: str) -> None:
        """Show a line until the next key."""
        self.message = text

    def _say(self, answer: tuple[bool, str], recording: bool) -> None:
        self._asked = False
        if answer[0]:  # the next report may be half a second away, the next key not
            self._client.status["recording"] = str(recording).lower()
        self.message = answer[1] if answer[0] else f"NOT DONE: {answer[1]}"

    @property
    def instruction(self) -> str:
        """What the next episode is, or the running one was, asked to do."""
        return self._instruction or self._client.status.get("instruction", "")


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
    """The keys that wait on standard input, in order."""
    # Not through sys.stdin: its buffer would hide the second of two keys from select.
    fd = sys.stdin.fileno()
    ready, _, _ = select.select([fd], [], [], 0.0)
    return os.read(fd, 64).decode(errors="ignore") if ready else ""
