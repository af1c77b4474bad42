"""How far a long command is: a bar on a terminal, a line now and then in a file."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

LINES = 20
"""Lines at most, where output is no terminal."""


class Counter:
    """Counts ``total`` items.

    Parameters
    ----------
    label
        What is being done; `advance` may change it.
    """

    def __init__(self, label: str, total: int, console: Console | None = None) -> None:
        self._console = console or Console()
        self._label, self._total, self._done = label, total, 0
        self._every = max(1, -(-total // LINES))
        columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=self._console)
        self._task = self._bar.add_task(label, total=total)
        self._began = time.monotonic()

    def __enter__(self) -> Counter:
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._console.is_terminal:
            self._bar.stop()

    def advance(self, label: str | None = None) -> None:
        """One more is done."""
        self._done += 1
        self._label = label or self._label
        if self._console.is_terminal:
            self._bar.update(self._task, advance=1, description=self._label)
        elif self._done % self._every == 0 or self._done == self._total:
            spent = time.monotonic() - self._began
            left = spent / self._done * (self._total - self._done)
            self.say(f"{self._label}: {self._done} of {self._total}, {_clock(left)} left")

    def say(self, line: str) -> None:
        """Print a line of its own."""
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
