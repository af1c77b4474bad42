"""What `wam record` shows: the state first, then who sends, then what is wrong, the keys last."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from wam_ros.recording.keyboard import Keys

Line = tuple[str, str]
"""Text, and the style rich gives it."""
_RATE = "Hz "
_READY = "space start   s/f last was success/failure   u discard last   q quit"
_RECORDING = "space ask   s success   f failure   d discard"
_ASKING = "s success   f failure   d discard"
_PROMPT = "How did it go?"


def lines(keys: Keys, status: Mapping[str, str], width: int, height: int) -> list[Line]:
    """At most ``height`` lines of at most ``width`` characters.

    Where room is short, the list of topics goes first, then the later warnings.
    """
    if not status:
        return [_cut("waiting for the recorder ...", "dim", width)]
    state = [_state(keys, status), _task(keys)]
    if keys.recording or status.get("path"):
        name = Path(status.get("path", "")).name
        state.append((f"  {name}" if keys.recording else f"  last: {name}", "dim"))
    message = _message(keys)
    warnings = [(f"! {w}", "yellow") for w in status.get("warnings", "").splitlines()]
    help_text = _ASKING if keys.asking else _RECORDING if keys.recording else _READY
    bottom = [message, (help_text, "reverse")]
    room = height - len(state) - len(bottom)
    warnings = warnings[: max(0, room)]
    topics = _topics(status, width)
    if len(topics) + len(warnings) + 2 > room:
        topics = topics[: max(0, room - len(warnings) - 2)]
    spaced = [("", ""), *topics] if topics else []
    shown = [*state, *spaced, *([("", "")] if warnings and spaced else []), *warnings, *bottom]
    return [_cut(text, style, width) for text, style in shown[:height]]


def plain(keys: Keys, status: Mapping[str, str]) -> str:
    """Everything in one line, for a pipe or a log."""
    if not status:
        return "waiting for the recorder"
    warnings = status.get("warnings", "").splitlines()
    parts = [_state(keys, status)[0].strip(), Path(status.get("path", "")).name, *warnings]
    return "; ".join(p for p in parts if p)


def _state(keys: Keys, s: Mapping[str, str]) -> Line:
    count = int(s.get("episodes", "0"))
    saved = f"{count} episode{'' if count == 1 else 's'} saved"
    if not keys.recording:
        return f"\u25cb ready   {saved}", "bold green"
    seconds, size = float(s.get("seconds", "0")), float(s.get("megabytes", "0"))
    lost = int(s.get("lost", "0")) + int(s.get("overflow", "0"))
    minutes = f"{int(seconds) // 60:02d}:{seconds % 60:04.1f}"
    text = f"\u25cf REC {minutes}   {size:,.0f} MB   {int(s.get('messages', '0')):,} messages"
    return f"{text}, {lost:,} lost   {saved}", "bold red"


def _task(keys: Keys) -> Line:
    if keys.instruction:
        return f"  \u201c{keys.instruction}\u201d", ""
    return "  no instruction: give one with --task, or on the topic `instruction`", "yellow"


def _message(keys: Keys) -> Line:
    if keys.asking:
        return _PROMPT, "bold"
    return keys.message, "bold red" if keys.message.startswith("NOT DONE") else ""


def _topics(status: Mapping[str, str], width: int) -> list[Line]:
    """Topic and rate, two a line where they fit; a dash stands for silence."""
    rates = {k.removeprefix(_RATE): v for k, v in status.items() if k.startswith(_RATE)}
    if not rates:
        return []
    cells = []
    longest = max(len(t) for t in rates)
    for topic, text in rates.items():
        now, _, wanted = text.partition(" of ")
        rate = f"{float(now):.0f}" if float(now) else "\u2013"
        cells.append(f"  {topic:{longest}s} {rate:>5s} {f'of {wanted} Hz' if wanted else 'Hz'}")
    column = max(len(c) for c in cells) + 2
    per_line = max(1, min(3, width // column))
    rows = [cells[i : i + per_line] for i in range(0, len(cells), per_line)]
    return [("".join(c.ljust(column) for c in row).rstrip(), "dim") for row in rows]


def _cut(text: str, style: str, width: int) -> Line:
    return (text if len(text) <= width else text[: max(0, width - 1)] + "\u2026"), style
