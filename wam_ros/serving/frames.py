"""Which of the received frames a RoboArena server hands to its model.

DreamZero's server keeps a queue per camera: the first call of a session gets the newest frame,
later calls the newest four, padded on the left with the oldest one there is.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class CameraQueues:
    """Queues of frames, one per camera.

    Parameters
    ----------
    cameras
        Names of the queues.
    count
        Frames of a call after the first.
    """

    def __init__(self, cameras: tuple[str, ...], count: int = 4) -> None:
        self._count = count
        self._queues: dict[str, list[NDArray[np.uint8]]] = {c: [] for c in cameras}
        self._session: str | None = None
        self._first = True

    def reset(self) -> None:
        """Empty the queues; the session is remembered, as DreamZero's server does."""
        for queue in self._queues.values():
            queue.clear()
        self._first = True

    def enter(self, session: str | None) -> bool:
        """Note the session of a request; True when it is another one and the queues were emptied.

        A request without a session stays in the one there is.
        """
        if session is None or session == self._session:
            return False
        begun = self._session is not None
        self._session = session
        self.reset()
        return begun

    def push(self, camera: str, frames: NDArray[np.uint8]) -> None:
        """Append ``(H, W, 3)`` or all of ``(T, H, W, 3)``."""
        queue = self._queues[camera]
        queue.extend(frames if frames.ndim == 4 else (frames,))
        del queue[: -self._count]

    @property
    def first(self) -> bool:
        """Whether the next `take` is the first of its session."""
        return self._first

    def take(self) -> dict[str, NDArray[np.uint8]]:
        """Frames of the next call, camera -> ``(T, H, W, 3)``, oldest first.

        Raises
        ------
        ValueError
            A camera never sent a frame; names it.
        """
        empty = [c for c, q in self._queues.items() if not q]
        if empty:
            raise ValueError(f"no frame of {', '.join(empty)} in this request or an earlier one")
        count = 1 if self._first else self._count
        taken = {}
        for camera, queue in self._queues.items():
            newest = queue[-count:]
            taken[camera] = np.stack([newest[0]] * (count - len(newest)) + newest)
        self._first = False
        return taken
