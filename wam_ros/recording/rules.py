"""When an episode becomes training data: the rules, in words and in code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from wam_ros.recording.rows import Rows
from wam_ros.recording.series import Recording

RULES = """\
An episode is refused when
  * a camera or a joint source brought nothing, or they never overlap in time;
  * a source's clock jumped by more than 0.2 s and stayed there: which frame goes with which joint
    position is then unknown;
  * rows that live perception would have withheld (a source missing or too old, samples too far
    apart), or that nobody commanded, follow one another for more than {gap:g} s;
  * fewer than {least} rows are left: a training window has {horizon} actions and a closing frame;
  * it has no instruction (give one with --task), or its verdict is not what --only asks for.

An episode is kept, and the steps concerned are excluded as anchors of training windows
(meta/step_filter.jsonl), for
  * shorter runs of such rows: they repeat the last good row;
  * rows a person did not command, with --only human.

An episode is kept with a remark when
  * more than {held:.0%} of its rows use a joint state older than its tolerance;
  * the file was cut (recorder killed, disk full): it is used up to there;
  * its instruction changes on the way: every row carries its own, and training windows stay
    within one;
  * joints were never commanded: their action is the measured position (0 for a velocity)."""


@dataclass(frozen=True)
class Limits:
    """Thresholds of the rules: ``max_gap`` in seconds, ``held`` a share 0..1."""

    max_gap: float = 0.25
    held: float = 0.1

    def text(self, horizon: int) -> str:
        """The rules with these thresholds filled in."""
        return RULES.format(gap=self.max_gap, least=horizon + 1, horizon=horizon, held=self.held)


@dataclass
class Outcome:
    """Why an episode is refused (empty: it is accepted), what to remark, what to exclude."""

    refused: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    excluded: list[int] = field(default_factory=list)


def clock_jumps(recording: Recording) -> list[str]:
    """A sentence for each source whose clock jumped."""
    every = {**recording.cameras, **recording.sources}
    every.update({c.name: s for c, s in recording.commands})
    found = {name: series.jump() for name, series in every.items()}
    return [
        f"clock of '{name}' jumped by {jump:+.2f} s against the recording's"
        for name, jump in found.items()
        if jump
    ]


def gaps(rows: Rows) -> list[tuple[int, int, str]]:
    """Runs of unusable rows: first row, one past the last, reason of the first."""
    runs: list[tuple[int, int, str]] = []
    for i in sorted(rows.problems):
        if runs and runs[-1][1] == i:
            runs[-1] = (runs[-1][0], i + 1, runs[-1][2])
        else:
            runs.append((i, i + 1, rows.problems[i]))
    return runs


def judge(
    rows: Rows,
    limits: Limits,
    horizon: int,
    period: float,
    only_human: bool,
    truncated: str,
) -> Outcome:
    """Apply the rules to the rows of one episode (see `RULES`)."""
    out = Outcome()
    n = len(rows.t)
    bad: set[int] = set()
    short: list[tuple[float, float, str]] = []
    for a, b, reason in gaps(rows):
        seconds = (b - a) * period
        if seconds > limits.max_gap:
            out.refused.append(
                f"gap of {seconds:.2f} s at {a * period:.1f} s, more than {limits.max_gap:g}: "
                f"{reason}"
            )
        else:
            short.append((seconds, a * period, reason))
            bad.update(range(a, b))
    if short:
        longest = max(short)
        out.remarks.append(
            f"{len(short)} short gap{'s' if len(short) > 1 else ''}, "
            f"longest {longest[0]:.2f} s at {longest[1]:.1f} s: {longest[2]}"
        )
    if n < horizon + 1:
        out.refused.append(f"{n} rows; a training window needs {horizon + 1}")
    if not any(rows.language):
        out.refused.append("no instruction; give one with --task")
    if only_human:
        if not rows.human.any():
            out.refused.append("no row was commanded by a person")
        bad.update(i for i in range(n) if not rows.human[i])
    # Any window that contains a bad row is lost: its actions reach `horizon - 1` rows ahead, its
    # last frame one more.
    out.excluded = sorted({a for i in bad for a in range(max(0, i - horizon), i + 1)})
    if (
        not out.refused
        and len(out.excluded) >= n - horizon
        and set(range(n - horizon)) <= set(out.excluded)
    ):
        out.refused.append("no training window is left without a gap")
    share = float(rows.held.mean()) if n else 0.0
    if share > limits.held:
        out.remarks.append(f"{share:.0%} of the rows use a sample older than its tolerance")
    if truncated:
        out.remarks.append(f"{truncated}; used up to there")
    texts = list(dict.fromkeys(rows.language))
    if len(texts) > 1:
        out.remarks.append(f"{len(texts)} instructions: {', '.join(map(repr, texts))}")
    if rows.uncommanded:
        out.remarks.append(
            f"never commanded, action is the measured position: {', '.join(rows.uncommanded)}"
        )
    return out


SELECT: dict[str, Callable[[Any], bool]] = {
    "success": lambda episode: episode is not None and episode.verdict == "success",
}
"""``--only`` choices that look at the episode; ``human`` looks at the rows (`judge`)."""
