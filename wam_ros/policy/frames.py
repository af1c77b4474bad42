"""The frame buffer: keep observations, hand out those at the training stride."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from wam_ros.contract.data import Observation


class FrameBuffer:
    """Remembers recent observations, oldest first.

    Parameters
    ----------
    stride
        Seconds between the frames a model was trained on (video stride x step period).
    span
        Seconds of history to keep.
    """

    def __init__(self, stride: float, span: float = 4.0) -> None:
        if stride <= 0 or span <= 0:
            raise ValueError(f"stride {stride} and span {span} must be positive")
        self._stride = stride
        self._span = span
        self._frames: deque[Observation] = deque()

    def __len__(self) -> int:
        return len(self._frames)

    def push(self, observation: Observation) -> None:
        """Add an observation; one not newer than the last is ignored."""
        if self._frames and observation.t0 <= self._frames[-1].t0:
            return
        self._frames.append(observation)
        while observation.t0 - self._frames[0].t0 > self._span:
            self._frames.popleft()

    def clear(self) -> None:
        """Forget everything, for example at a new instruction."""
        self._frames.clear()

    @property
    def newest(self) -> Observation | None:
        """The latest observation."""
        return self._frames[-1] if self._frames else None

    def pick(self, count: int, since: float = float("-inf")) -> tuple[Observation, ...]:
        """Return up to ``count`` frames ending at the newest, one stride apart, oldest first.

        Each wanted time takes the nearest frame within half a stride; frames not newer than
        ``since`` are left out, so a frame is never fed twice.
        """
        if not self._frames:
            return ()
        newest = self._frames[-1]
        picked = [newest]
        for i in range(1, count):
            wanted = newest.t0 - i * self._stride
            nearest = min(self._frames, key=lambda o: abs(o.t0 - wanted))
            if abs(nearest.t0 - wanted) > 0.5 * self._stride or nearest.t0 <= since:
                break
            picked.append(nearest)
        return tuple(reversed(picked))

    def at(self, offsets: Sequence[float]) -> tuple[Observation, ...]:
        """The frames nearest to ``offsets`` (s, 0 or negative) from the newest, oldest first.

        A time that lies before the first frame there is gives none, and a frame comes once; the
        newest always comes.
        """
        if not self._frames:
            return ()
        newest = self._frames[-1]
        oldest = self._frames[0].t0 - 0.5 * self._stride
        picked = {newest.t0: newest}
        for offset in offsets:
            wanted = newest.t0 + offset
            if wanted >= oldest:
                nearest = min(self._frames, key=lambda o: abs(o.t0 - wanted))
                picked[nearest.t0] = nearest
        return tuple(picked[t] for t in sorted(picked))
