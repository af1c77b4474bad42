"""The quick readers against the decoder they stand in for, on whatever ROS can serialize."""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np
import pytest
from builtin_interfaces.msg import Duration, Time
from hypothesis import given, settings
from hypothesis import strategies as st
from mcap.records import Schema
from mcap_ros2.decoder import DecoderFactory
from rclpy.serialization import serialize_message
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Float64MultiArray, Header, MultiArrayDimension, MultiArrayLayout
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from wam_ros.recording.cdr import quick_decoder
from wam_ros.recording.definitions import definition

texts = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF), max_size=9)
doubles = st.lists(st.floats(allow_nan=False), max_size=5)
names = st.lists(texts, max_size=4)
numbers = st.integers(0, 2**32 - 1)
headers = st.builds(
    Header,
    stamp=st.builds(Time, sec=st.integers(-(2**31), 2**31 - 1), nanosec=numbers),
    frame_id=texts,
)
durations = st.builds(Duration, sec=st.integers(-9, 9), nanosec=numbers)
points = st.builds(
    JointTrajectoryPoint, positions=doubles, velocities=doubles, accelerations=doubles,
    effort=doubles, time_from_start=durations,
)  # fmt: skip
dimensions = st.builds(MultiArrayDimension, label=texts, size=numbers, stride=numbers)
messages = {
    "sensor_msgs/msg/JointState": st.builds(
        JointState, header=headers, name=names, position=doubles, velocity=doubles, effort=doubles
    ),
    "trajectory_msgs/msg/JointTrajectory": st.builds(
        JointTrajectory, header=headers, joint_names=names, points=st.lists(points, max_size=3)
    ),
    "std_msgs/msg/Float64MultiArray": st.builds(
        Float64MultiArray,
        layout=st.builds(
            MultiArrayLayout, dim=st.lists(dimensions, max_size=2), data_offset=numbers
        ),
        data=doubles,
    ),
    "sensor_msgs/msg/Image": st.builds(
        Image, header=headers, height=numbers, width=numbers, encoding=texts,
        is_bigendian=st.integers(0, 255), step=numbers,
        data=st.binary(max_size=40).map(lambda b: array("B", b)),
    ),
}  # fmt: skip


def generic(kind: str) -> Any:
    return DecoderFactory().decoder_for(
        "cdr", Schema(id=1, name=kind, encoding="ros2msg", data=definition(kind).encode())
    )


def plain(value: Any) -> Any:
    """A decoded message as lists and numbers."""
    fields = getattr(value, "__slots__", None) or getattr(value, "__dict__", None)
    if fields is not None:
        return {f: plain(getattr(value, f)) for f in fields}
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    return [plain(v) for v in value] if isinstance(value, (list, tuple, np.ndarray)) else value


@pytest.mark.parametrize("kind", sorted(messages))
def test_the_same_fields_and_values(kind: str) -> None:
    whole = generic(kind)

    def refuse(_: bytes) -> Any:
        raise AssertionError("left to the generic decoder")

    quick = quick_decoder(kind, definition(kind), refuse)

    @settings(deadline=None)
    @given(st.lists(messages[kind], min_size=1, max_size=4))
    def check(sent: list[Any]) -> None:
        for message in sent:  # one decoder for all: what it remembers must not leak into the next
            data = serialize_message(message)
            assert plain(quick(data)) == plain(whole(data))

    check()


def test_what_is_not_known_goes_to_the_generic_decoder() -> None:
    kind = "sensor_msgs/msg/JointState"
    text = definition(kind)
    marked = quick_decoder(kind, text, lambda data: "generic")
    data = serialize_message(JointState(name=["a"], position=[1.0]))
    assert marked(data).position == (1.0,)
    assert marked(b"\x00\x00" + data[2:]) == "generic", "big-endian"
    assert marked(data[:-30]) == "generic", "cut"
    other = quick_decoder(kind, text.replace("float64[] effort", "float32[] effort"), print)
    assert other is print, "somebody else's message of that name"
    assert quick_decoder("std_msgs/msg/String", definition("std_msgs/msg/String"), print) is print
