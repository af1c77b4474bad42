"""H.264 files that a trainer can seek in, and reading them back."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

Rgb = NDArray[np.uint8]
CODEC, PIXELS = "h264", "yuv420p"
_OPTIONS = {
    # Constant quality near transparent, and a key frame every ten frames: trainers fetch single
    # frames at random, and decoding starts at a key frame.
    "crf": "18",
    "preset": "veryfast",
    "g": "10",
    "bf": "0",
    "movflags": "+faststart",
}


class VideoWriter:
    """Writes frame ``i`` at exactly ``i / fps`` seconds.

    Raises
    ------
    ValueError
        Width or height is odd: 4:2:0 pictures need even sides.
    """

    def __init__(self, path: Path, width: int, height: int, fps: float) -> None:
        if width % 2 or height % 2:
            raise ValueError(f"video size {width}x{height}: both must be even for H.264")
        self._rate = Fraction(fps).limit_denominator(1001)
        self._container = av.open(str(path), "w", format="mp4")
        self._stream = self._container.add_stream("libx264", rate=self._rate, options=_OPTIONS)
        self._stream.width, self._stream.height = width, height
        self._stream.pix_fmt = PIXELS
        self._stream.codec_context.time_base = 1 / self._rate
        self._stream.codec_context.thread_count = 1  # episodes are converted side by side
        self.count = 0

    def add(self, rgb: Rgb) -> None:
        """Append one picture ``(H, W, 3)``."""
        frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
        frame.pts = self.count
        frame.time_base = 1 / self._rate
        self._container.mux(self._stream.encode(frame))
        self.count += 1

    def close(self) -> None:
        """Write what is left and finish the file."""
        self._container.mux(self._stream.encode(None))
        self._container.close()


def read_frames(path: Path, stride: int = 1) -> tuple[NDArray[np.float64], list[Rgb]]:
    """Timestamps in seconds of all pictures of a video file, and every ``stride``-th picture."""
    times, frames = [], []
    with av.open(str(path)) as container:
        for i, frame in enumerate(container.decode(video=0)):
            times.append(float(frame.time or 0.0))
            if i % stride == 0:  # turning a picture into RGB costs more than decoding it
                frames.append(frame.to_ndarray(format="rgb24"))
    return np.asarray(times), frames
