"""`wam record` as a person has it: a terminal, keys, a screen; and without a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from robot import Robot

from wam_ros.recording import metadata, screen
from wam_ros.recording.keyboard import Keys

WAM = [sys.executable, "-m", "wam_ros.cli", "record", "yam"]
_CONTROL = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]|[\r\x07]")


class Terminal:
    """A process on a pseudo-terminal of 100 columns; ``seen`` is all it wrote, codes removed."""

    def __init__(self, command: list[str]) -> None:
        self.master, self.slave = pty.openpty()
        self.resize(100, 30)
        self.before = termios.tcgetattr(self.slave)
        self.process = subprocess.Popen(
            command, stdin=self.slave, stdout=self.slave, stderr=self.slave, start_new_session=True
        )
        self.seen = ""

    def resize(self, columns: int, rows: int) -> None:
        size = struct.pack("HHHH", rows, columns, 0, 0)
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, size)

    def press(self, keys: str) -> None:
        self.seen = ""
        os.write(self.master, keys.encode())

    def shows(self, text: str, seconds: float = 40.0) -> None:
        end = time.monotonic() + seconds
        while text not in self.seen:
            assert time.monotonic() < end, f"no {text!r} in {self.seen[-1500:]}"
            self.read()

    def read(self) -> None:
        if select.select([self.master], [], [], 0.1)[0]:
            raw = os.read(self.master, 65536)
            self.seen += _CONTROL.sub(b"", raw).decode(errors="ignore")


@pytest.fixture
def terminal(domain_id: int, tmp_path: Path) -> Iterator[Terminal]:
    made = Terminal([*WAM, "--out", str(tmp_path / "bags"), "--task", "fold the towel"])
    yield made
    if made.process.poll() is None:
        os.killpg(made.process.pid, signal.SIGTERM)
    made.process.wait(30)
    os.close(made.master)
    os.close(made.slave)


def verdicts(folder: Path) -> list[str]:
    bags = sorted(folder.glob("*/metadata.yaml"))
    return [metadata.read(b.parent)["custom_data"]["wam_verdict"] for b in bags]


def become(folder: Path, expected: list[str]) -> None:
    """Wait for the verdicts on disk: the keys' help has the same words, whatever was pressed."""
    end = time.monotonic() + 40
    while verdicts(folder) != expected:
        assert time.monotonic() < end, f"{verdicts(folder)} in {folder}, expected {expected}"
        time.sleep(0.1)


def test_an_afternoon_of_recording(terminal: Terminal, tmp_path: Path) -> None:
    bags = tmp_path / "bags"
    with Robot():
        terminal.shows("ready")
        terminal.shows("“fold the towel”")
        terminal.shows("of 30 Hz")  # who sends, before anything is recorded
        terminal.press(" ")
        terminal.shows("REC")
        terminal.press("q")
        terminal.shows("end it with s, f or d first")
        terminal.press(" ")
        terminal.shows("How did it go?")
        terminal.press("s")
        terminal.shows("1 episode saved")
        assert verdicts(bags) == ["success"]
        terminal.press("f")
        become(bags, ["failure"])
        terminal.press(" ")
        terminal.shows("REC")
        terminal.resize(44, 8)
        os.kill(terminal.process.pid, signal.SIGWINCH)
        terminal.press("d")
        become(bags / "discarded", ["discard"])
        assert verdicts(bags) == ["failure"]
        terminal.press("u")
        terminal.shows("0 episodes saved")
        terminal.press(" ")
        terminal.shows("REC")
        terminal.press("sq")  # two keys at once are two keys
        terminal.shows("1 episode saved in ")
        assert terminal.process.wait(20) == 0
    assert termios.tcgetattr(terminal.slave) == terminal.before
    assert verdicts(bags) == ["success"] and len(verdicts(bags / "discarded")) == 2


def recorders(out: Path) -> list[int]:
    """Processes that record into ``out``."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes()
        except OSError:
            continue
        if b"recorder_node" in line and str(out).encode() in line:
            found.append(int(entry.parent.name))
    return found


def test_a_closed_terminal_leaves_no_recorder(terminal: Terminal, tmp_path: Path) -> None:
    terminal.shows("ready")
    terminal.press(" ")
    terminal.shows("REC")
    assert recorders(tmp_path / "bags")
    terminal.process.send_signal(signal.SIGHUP)
    assert terminal.process.wait(30) == 128 + signal.SIGHUP
    assert not recorders(tmp_path / "bags")
    (left,) = (tmp_path / "bags").glob("*/metadata.yaml")
    custom = metadata.read(left.parent)["custom_data"]
    assert custom["wam_verdict"] == "none" and "wam_open" not in custom


def test_without_a_terminal_it_writes_lines(domain_id: int, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*WAM, "--out", str(tmp_path / "bags")],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    said = process.stdout.readline(), process.stdout.readline()
    process.terminate()
    rest = process.stdout.read()
    assert process.wait(30) == 143
    assert "no terminal" in said[0] and said[1].startswith("○ ready   0 episodes saved")
    assert "\x1b" not in "".join(said) + rest
    assert not recorders(tmp_path / "bags")


class Client:
    def __init__(self, status: dict[str, str]) -> None:
        self.status = status

    def start(self, instruction: str = "") -> tuple[bool, str]:
        return True, "ok"

    def stop(self, verdict: str, note: str = "") -> tuple[bool, str]:
        return True, "ok"


@settings(deadline=None)
@given(
    st.integers(10, 200), st.integers(5, 60), st.booleans(), st.integers(0, 20),
    st.integers(0, 12), st.text(max_size=200).filter(lambda t: "\n" not in t),
)  # fmt: skip
def test_the_screen_fits_whatever_its_size(
    width: int, height: int, recording: bool, topics: int, warnings: int, message: str
) -> None:
    status: dict[str, Any] = {
        "recording": str(recording).lower(), "path": "/x/20260101_fold", "seconds": "71.26",
        "warnings": "\n".join(f"warning {k}" for k in range(warnings)),
        **{f"Hz /topic/{k}": f"{k}.0 of 30" for k in range(topics)},
    }  # fmt: skip
    keys = Keys(Client(status), "fold it")
    keys.say(message)
    shown = screen.lines(keys, status, width, height)
    assert len(shown) <= height and all(len(t) <= width for t, _ in shown)
    assert ("REC 01:11.3"[: width - 3] in shown[0][0]) == recording
    assert shown[-1][0].startswith("space")
    if height >= 6 and warnings:
        assert any(t.startswith("! warn") for t, _ in shown)
