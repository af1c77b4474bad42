"""Decode camera messages to RGB and bring them, whole, to the model's size."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Rgb = NDArray[np.uint8]
_CHANNELS = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1}
_TO_RGB = {
    "bgr8": cv2.COLOR_BGR2RGB,
    "rgba8": cv2.COLOR_RGBA2RGB,
    "bgra8": cv2.COLOR_BGRA2RGB,
    "mono8": cv2.COLOR_GRAY2RGB,
}


class ImageError(ValueError):
    """A picture that cannot be used; says what was found and what is accepted."""


def decode(message: Any) -> Rgb:
    """RGB ``(H, W, 3)`` from a sensor_msgs Image or CompressedImage (duck-typed).

    Raises
    ------
    ImageError
        Unknown encoding, a buffer that does not fit the header, or undecodable bytes.
    """
    if hasattr(message, "encoding"):
        return _decode_raw(message)
    if not hasattr(message, "format"):
        raise ImageError(f"{type(message).__name__} is neither Image nor CompressedImage")
    buffer = np.frombuffer(message.data, dtype=np.uint8)
    picture = cv2.imdecode(buffer, cv2.IMREAD_COLOR) if buffer.size else None
    if picture is None:
        raise ImageError(f"compressed image of format '{message.format}' cannot be decoded")
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def _decode_raw(message: Any) -> Rgb:
    channels = _CHANNELS.get(message.encoding)
    if channels is None:
        raise ImageError(
            f"encoding '{message.encoding}' is not supported; set the driver to one of "
            f"{', '.join(_CHANNELS)}"
        )
    height, width, step = message.height, message.width, message.step
    buffer = np.frombuffer(message.data, dtype=np.uint8)
    if step < width * channels or buffer.size < height * step or height * width == 0:
        raise ImageError(
            f"{buffer.size} bytes do not hold a {width}x{height} {message.encoding} image "
            f"with step {step}"
        )
    rows = buffer[: height * step].reshape(height, step)[:, : width * channels]
    picture = rows.reshape(height, width, channels) if channels > 1 else rows
    code = _TO_RGB.get(message.encoding)
    picture = picture if code is None else cv2.cvtColor(np.ascontiguousarray(picture), code)
    return np.asarray(picture, dtype=np.uint8)


def fit(rgb: Rgb, width: int, height: int) -> Rgb:
    """Resize the whole picture to ``width`` x ``height``; nothing is cropped."""
    if rgb.shape[:2] == (height, width):
        return rgb
    shrinks = rgb.shape[0] >= height and rgb.shape[1] >= width
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(rgb, (width, height), interpolation=how), dtype=np.uint8)
