"""What a model imagined is worked out between two calls, and never in the way of the next."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any

from wam_ros.policy.base import Afterthought

_FORGET = 0.8


class Afterwork:
    """One thread that empties afterthoughts piece by piece.

    A piece (the surprise, or a frame with its decoding) begins only when it is expected to end
    before the next call is due, and what it yields after `stop` is thrown away. A piece that is
    under way cannot be interrupted, but nobody waits for it: the next call starts beside it.

    Parameters
    ----------
    on_surprise, on_frame
        Called in the thread, with ``(context, surprise)`` once per afterthought (NaN when there was
        no time) and ``(context, stamp, rgb)``.
    now
        The clock that ``due`` of `start` is on, in seconds.
    on_error
        Called with what a backend raised; the rest of that afterthought is dropped.
    every
        Seconds without a frame after which there is a glance; infinite for never.
    """

    def __init__(
        self,
        on_surprise: Callable[[Any, float], None],
        on_frame: Callable[[Any, float, Any], None],
        now: Callable[[], float],
        on_error: Callable[[Exception], None] = lambda error: None,
        every: float = math.inf,
    ) -> None:
        self._on_surprise, self._on_frame, self._now = on_surprise, on_frame, now
        self._on_error, self._every = on_error, every
        self._shown_at = math.nan
        self._change = threading.Condition()
        self._next: tuple[int, Afterthought, Any, float] | None = None
        self._current = self._void = 0
        self._closed = self._busy = False
        self._expected = {"surprise": 0.0, "frame": 0.0}
        self.shown = self.dropped = 0
        """Frames handed out, and afterthoughts that were cut short."""
        self._thread = threading.Thread(target=self._run, name="afterwork", daemon=True)
        self._thread.start()

    def start(self, thought: Afterthought, due: float, context: Any = None) -> None:
        """Begin with ``thought``, whose chunk is out; the next call is expected at ``due``."""
        with self._change:
            if math.isnan(self._shown_at):
                self._shown_at = self._now()
            self._current += 1
            skipped, self._next = self._next, (self._current, thought, context, due)
            self._change.notify_all()
        if skipped is not None:  # the thread is still at a piece of the one before
            self.dropped += 1
            self._on_surprise(skipped[2], float("nan"))

    def stop(self, glance: bool = False) -> None:
        """A call starts: drop what is left, a glance only if told so. Does not wait."""
        with self._change:
            self._current += 1
            if glance:
                self._void = self._current

    def rest(self, seconds: float) -> bool:
        """Wait until no piece is under way, at most ``seconds``; whether that is so."""
        with self._change:
            return self._change.wait_for(lambda: not self._busy, seconds)

    def close(self) -> None:
        """Stop, and end the thread once the piece under way is done."""
        with self._change:
            self._current += 1
            self._void = self._current
            self._closed = True
            self._change.notify_all()

    def seconds(self) -> dict[str, float]:
        """Expected time of a piece, by kind."""
        return dict(self._expected)

    def _run(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._closed or self._next is not None)
                if self._closed:
                    return
                assert self._next is not None
                work, self._next = self._next, None
                self._busy = True
            try:
                self._empty(*work)
            except Exception as err:  # a decoder out of memory must not end the thread
                self.dropped += 1
                self._on_error(err)
            del work  # it holds the model
            with self._change:
                self._busy = False
                self._change.notify_all()

    def _empty(self, number: int, thought: Afterthought, context: Any, due: float) -> None:
        glance = self._now() - self._shown_at >= self._every
        surprise = float("nan")
        try:
            if self._may("surprise", number, due, glance):
                surprise = self._timed("surprise", thought.surprise)
        finally:  # once per call, whatever happens
            self._on_surprise(context, surprise)
        frames = iter(thought.frames)
        while self._may("frame", number, due, glance):
            found = self._timed("frame", lambda: next(frames, None))
            if found is None:
                return
            with self._change:
                if not self._wanted(number, glance):
                    break
                self._on_frame(context, *found)
                self.shown += 1
                self._shown_at = self._now()
        self.dropped += 1

    def _wanted(self, number: int, glance: bool) -> bool:
        return number > self._void if glance else number == self._current

    def _may(self, kind: str, number: int, due: float, glance: bool) -> bool:
        """Whether a piece may begin: it is wanted, and ends in time or is part of a glance."""
        with self._change:
            if not self._wanted(number, glance):
                return False
        if glance or self._now() + self._expected[kind] <= due:
            return True
        # One slow piece must not end it for good: what is never done is never measured again.
        self._expected[kind] *= _FORGET
        return False

    def _timed(self, kind: str, piece: Callable[[], Any]) -> Any:
        begin = self._now()
        found = piece()
        # Frames of a latent come together: only the first of them takes time.
        self._expected[kind] = max(self._now() - begin, _FORGET * self._expected[kind])
        return found
