"""What the model imagined beside what the cameras then saw."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

_MOMENTS = 6
_NEAR = 0.05
"""Seconds between an imagined frame and an observation that still show the same moment."""
_APART = 0.045
"""Least seconds between observations that are kept."""


@dataclass
class Film:
    """Imagined and observed pictures and the surprise, as they came; times are stamps in s.

    Attributes
    ----------
    seen
        Stamp and views of every observation, small.
    imagined
        Expected stamp, seconds it came ahead of it, and composite uint8 [H, W, 3].
    surprise
        Time of arrival and value.
    marks
        Time and text of what was said on the way or done to the scene.
    begin
        When the first instruction was said; pictures count from then.
    """

    seen: list[tuple[float, Mapping[str, np.ndarray]]] = field(default_factory=list)
    imagined: list[tuple[float, float, np.ndarray]] = field(default_factory=list)
    surprise: list[tuple[float, float]] = field(default_factory=list)
    marks: list[tuple[float, str]] = field(default_factory=list)
    height: int = 96
    begin: float = math.nan

    def start(self) -> None:
        """The first instruction is said just now."""
        self.begin = time.time()

    def mark(self, text: str) -> None:
        """Something was said, or done to the scene, just now."""
        self.marks.append((time.time(), text))

    def watch(self, client: Any) -> None:
        """Listen to what the policy node publishes beside its chunks, and to observations."""
        from sensor_msgs.msg import CompressedImage
        from std_msgs.msg import Float32

        from wam_ros.msg import Observation

        client.on(CompressedImage, "imagined_video", self._on_frame)
        client.on(Float32, "surprise", self._on_surprise)
        client.on(Observation, "observation", self._on_observation)

    def _on_frame(self, message: Any) -> None:
        bgr = cv2.imdecode(np.frombuffer(message.data, np.uint8), cv2.IMREAD_COLOR)
        if bgr is None:
            return
        expected = _seconds(message.header.stamp)
        self.imagined.append((expected, expected - time.time(), bgr[:, :, ::-1]))

    def _on_surprise(self, message: Any) -> None:
        if np.isfinite(message.data):
            self.surprise.append((time.time(), float(message.data)))

    def _on_observation(self, message: Any) -> None:
        from wam_ros.nodes.convert import observation_from_msg

        if self.seen and _seconds(message.header.stamp) - self.seen[-1][0] < _APART:
            return
        observation = observation_from_msg(message)
        self.seen.append(
            (observation.t0, {n: self._small(v) for n, v in observation.views.items()})
        )

    def _small(self, view: np.ndarray) -> np.ndarray:
        width = round(view.shape[1] * self.height / view.shape[0])
        return cv2.resize(view, (width, self.height), interpolation=cv2.INTER_AREA)

    def pairs(self) -> list[tuple[float, float, np.ndarray, Mapping[str, np.ndarray]]]:
        """Stamp, lead in s, imagined composite and the views seen then, for some moments.

        Of the frames imagined for a moment it is the one that was imagined earliest.
        """
        if not self.imagined or not self.seen:
            return []
        stamps = np.array([t for t, _ in self.seen])
        expected = [t for t, _, _ in self.imagined]
        last = min(stamps[-1], max(expected))
        first = min(max(stamps[0], min(expected)), last)
        found: list[tuple[float, float, np.ndarray, Mapping[str, np.ndarray]]] = []
        for wanted in np.linspace(first, last, _MOMENTS):
            near = [x for x in self.imagined if abs(x[0] - wanted) <= 2 * _NEAR]
            if not near:
                continue
            moment, lead, picture = max(near, key=lambda x: x[1])
            if found and found[-1][0] == moment:  # few were imagined
                continue
            i = int(np.argmin(np.abs(stamps - moment)))
            if abs(stamps[i] - moment) <= _NEAR:
                found.append((moment, lead, picture, self.seen[i][1]))
        return found


def _seconds(stamp: Any) -> float:
    return float(stamp.sec) + stamp.nanosec * 1e-9


def draw(path: Path, film: Film, tag: str, title: str) -> bool:
    """Write the picture; False when nothing was imagined that was also seen."""
    pairs = film.pairs()
    if not pairs:
        return False
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    begin = film.begin if math.isfinite(film.begin) else film.seen[0][0]
    surprise = [(t - begin, v) for t, v in film.surprise if np.isfinite(v)]
    rows = (1, 1, 1.1) if surprise else (1, 1)
    size = (max(8.0, 2.2 * len(pairs)), 5.0 if surprise else 3.4)
    fig = plt.figure(figsize=size, constrained_layout=True)
    grid = fig.add_gridspec(len(rows), len(pairs), height_ratios=rows)
    for column, (stamp, lead, imagined, views) in enumerate(pairs):
        seen = _compose(views, tag, imagined.shape[:2])
        for row, picture in enumerate((imagined, seen)):
            axis = fig.add_subplot(grid[row, column])
            axis.imshow(picture)
            axis.set_xticks([])
            axis.set_yticks([])
            if column == 0:
                axis.set_ylabel(("imagined", "seen")[row])
        when = f"{lead:.2f} s ahead" if lead >= 0 else f"shown {-lead:.2f} s late"
        fig.axes[-2].set_title(f"{stamp - begin:.1f} s, {when}", fontsize=8)
    if surprise:
        axis = fig.add_subplot(grid[2, :])
        axis.plot(*zip(*surprise), ".-")
        for moment, text in film.marks:
            axis.axvline(moment - begin, color="C3", linewidth=1.0)
            axis.annotate(
                text, (moment - begin, 0.0), (4, 4), textcoords="offset points", fontsize=8
            )
        axis.set_xlabel("time since the instruction (s)")
        axis.set_ylabel("surprise")
        axis.set_ylim(bottom=0.0)
        axis.grid(alpha=0.3)
    fig.suptitle(title, fontsize=10)
    fig.savefig(path, dpi=120)
    plt.close(fig)
    return True


def _compose(views: Mapping[str, np.ndarray], tag: str, size: tuple[int, ...]) -> np.ndarray:
    import torch

    from wam_ros.wam.views import composite

    tensors = {n: torch.from_numpy(np.ascontiguousarray(v))[None] for n, v in views.items()}
    height, width = size
    return np.asarray(composite(tensors, tag, (height, width))[0].numpy())
