"""Progress of long commands, on a terminal and in a file."""

from __future__ import annotations

import io

from rich.console import Console

from wam_ros.commands.progress import LINES, Counter


def _run(terminal: bool, total: int) -> str:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=100)
    with Counter("evaluating", total, console) as counter:
        counter.say("seed 3: [odd] words")
        for i in range(total):
            counter.advance(f"async: {i + 1}")
    return out.getvalue()


def test_a_file_gets_a_few_lines_and_the_last_says_that_all_is_done() -> None:
    lines = _run(terminal=False, total=203).splitlines()
    assert lines[0] == "seed 3: [odd] words"
    assert 10 <= len(lines) <= LINES + 2
    assert lines[-1] == "async: 203: 203 of 203, 0:00 left"
    assert _run(terminal=False, total=1).splitlines()[1:] == ["async: 1: 1 of 1, 0:00 left"]


def test_a_terminal_gets_a_bar() -> None:
    text = _run(terminal=True, total=4)
    assert "━" in text and "4/4" in text and "[odd]" in text
    assert " left" not in text
