"""Quick readers for the message types that make up nearly all of a bag.

mcap_ros2's decoder walks the definition field by field, which costs a third of a millisecond per
message; a five-second episode has thousands. These read the same fields by offset, little-endian
CDR only, and hand everything else to the decoder they replace.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

Decoder = Callable[[bytes], Any]
_U32 = struct.Struct("<I")
_TIME = struct.Struct("<iI")
_FIELDS = {
    "sensor_msgs/msg/JointState": (
        "std_msgs/Header header;string[] name;float64[] position;float64[] velocity;"
        "float64[] effort"
    ),
    "sensor_msgs/msg/Image": (
        "std_msgs/Header header;uint32 height;uint32 width;string encoding;uint8 is_bigendian;"
        "uint32 step;uint8[] data"
    ),
    "std_msgs/msg/Float64MultiArray": "MultiArrayLayout layout;float64[] data",
    "trajectory_msgs/msg/JointTrajectory": (
        "std_msgs/Header header;string[] joint_names;JointTrajectoryPoint[] points"
    ),
}


def quick_decoder(kind: str, definition: str, generic: Decoder) -> Decoder:
    """A decoder for messages of type ``kind``; ``generic`` itself where there is no quicker one.

    ``definition`` is the bag's own; when its fields are not those known here, nothing is assumed.
    """
    own = re.sub(r"#.*", "", definition.split("=" * 80)[0]).split("\n")
    fields = ";".join(" ".join(line.split()) for line in own if line.strip())
    if fields != _FIELDS.get(kind):
        return generic
    read: Decoder = {
        "sensor_msgs/msg/JointState": _JointStates().state,
        "sensor_msgs/msg/Image": _image,
        "std_msgs/msg/Float64MultiArray": _array,
        "trajectory_msgs/msg/JointTrajectory": _JointStates().trajectory,
    }[kind]

    def decode(data: bytes) -> Any:
        if len(data) < 12 or data[1] != 1:  # not little-endian
            return generic(data)
        try:
            return read(data)
        except (struct.error, IndexError):
            return generic(data)  # which says what is wrong

    return decode


def _aligned(at: int, size: int) -> int:
    """``at``, an offset into the message, moved up; alignment counts from after the four bytes."""
    return at + (4 - at) % size


def _string(data: bytes, at: int) -> tuple[str, int]:
    (length,) = _U32.unpack_from(data, at := _aligned(at, 4))
    end = at + 4 + length
    if end > len(data):
        raise IndexError("string leaves the message")
    return data[at + 4 : end].rstrip(b"\0").decode(), end


def _doubles(data: bytes, at: int) -> tuple[tuple[float, ...], int]:
    (count,) = _U32.unpack_from(data, at := _aligned(at, 4))
    at += 4
    if not count:
        return (), at
    at = _aligned(at, 8)
    return struct.unpack_from(f"<{count}d", data, at), at + 8 * count


def _header(data: bytes, frame: str) -> SimpleNamespace:
    sec, nanosec = _TIME.unpack_from(data, 4)
    return SimpleNamespace(stamp=SimpleNamespace(sec=sec, nanosec=nanosec), frame_id=frame)


class _JointStates:
    """JointState and JointTrajectory, which begin alike.

    Remembers frame and names: from a driver they are the same bytes in every message.
    """

    def __init__(self) -> None:
        self._prefix = b""
        self._known: tuple[str, list[str]] = ("", [])

    def state(self, data: bytes) -> SimpleNamespace:
        at = self._names_end(data)
        position, at = _doubles(data, at)
        velocity, at = _doubles(data, at)
        effort, _ = _doubles(data, at)
        frame, names = self._known
        return SimpleNamespace(
            header=_header(data, frame), name=names, position=position, velocity=velocity,
            effort=effort,
        )  # fmt: skip

    def trajectory(self, data: bytes) -> SimpleNamespace:
        at = self._names_end(data)
        (count,) = _U32.unpack_from(data, at := _aligned(at, 4))
        at += 4
        points = []
        for _ in range(count):
            positions, at = _doubles(data, at)
            velocities, at = _doubles(data, at)
            accelerations, at = _doubles(data, at)
            effort, at = _doubles(data, at)
            sec, nanosec = _TIME.unpack_from(data, at := _aligned(at, 4))
            at += 8
            points.append(
                SimpleNamespace(
                    positions=positions, velocities=velocities, accelerations=accelerations,
                    effort=effort, time_from_start=SimpleNamespace(sec=sec, nanosec=nanosec),
                )
            )  # fmt: skip
        frame, names = self._known
        return SimpleNamespace(header=_header(data, frame), joint_names=names, points=points)

    def _names_end(self, data: bytes) -> int:
        end = 12 + len(self._prefix)
        return end if self._prefix and data[12:end] == self._prefix else self._learn(data)

    def _learn(self, data: bytes) -> int:
        frame, at = _string(data, 12)
        (count,) = _U32.unpack_from(data, at := _aligned(at, 4))
        at += 4
        names = []
        for _ in range(count):
            name, at = _string(data, at)
            names.append(name)
        self._prefix, self._known = data[12:at], (frame, names)
        return at


def _image(data: bytes) -> SimpleNamespace:
    frame, at = _string(data, 12)
    height, width = struct.unpack_from("<II", data, at := _aligned(at, 4))
    encoding, at = _string(data, at + 8)
    big = data[at]
    step, length = struct.unpack_from("<II", data, at := _aligned(at + 1, 4))
    pixels = memoryview(data)[at + 8 : at + 8 + length]
    if len(pixels) != length:
        raise IndexError("pixels leave the message")
    return SimpleNamespace(
        header=_header(data, frame), height=height, width=width, encoding=encoding,
        is_bigendian=big, step=step, data=pixels,
    )  # fmt: skip


def _array(data: bytes) -> SimpleNamespace:
    (count,) = _U32.unpack_from(data, 4)
    at, dimensions = 8, []
    for _ in range(count):
        label, at = _string(data, at)
        size, stride = struct.unpack_from("<II", data, at := _aligned(at, 4))
        dimensions.append(SimpleNamespace(label=label, size=size, stride=stride))
        at += 8
    (offset,) = _U32.unpack_from(data, at := _aligned(at, 4))
    values, _ = _doubles(data, at + 4)
    return SimpleNamespace(
        layout=SimpleNamespace(dim=dimensions, data_offset=offset), data=values
    )  # fmt: skip
