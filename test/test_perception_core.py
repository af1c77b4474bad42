"""Alignment, decoding and joint extraction without middleware."""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wam_ros.contract.model import StateSource
from wam_ros.perception.images import ImageError, decode, fit
from wam_ros.perception.joints import JointError, read
from wam_ros.perception.loss import lost_share
from wam_ros.perception.sync import Aligner, SampleStatus, SourceSpec

TWO = [SourceSpec("a", "asof", 0.1, 0.5), SourceSpec("b", "hold", 0.1, 0.5)]


@settings(max_examples=60, deadline=None)
@given(
    a=st.lists(st.floats(0, 2), min_size=1, max_size=30),
    b=st.lists(st.floats(0, 2), min_size=1, max_size=30),
)
def test_nothing_from_the_future_and_skew_bounded(a: list[float], b: list[float]) -> None:
    aligner = Aligner(TWO, max_skew=0.08)
    events = sorted([(t, "a") for t in a] + [(t, "b") for t in b])
    emitted = 0
    for t, name in events:
        aligner.push(name, t, t)
        result = aligner.align(t)
        if result is None or result.reason:
            continue
        emitted += 1
        stamps = [p.stamp for p in result.picked.values()]
        assert max(stamps) <= result.t0
        assert result.skew <= 0.08
    assert emitted == aligner.complete


def test_hold_repeats_and_asof_does_not() -> None:
    aligner = Aligner(TWO, max_skew=1.0)
    aligner.push("b", 0.0, "old")
    aligner.push("a", 0.3, "new")
    aligner.push("a", 0.31, "new")
    result = aligner.align(0.31)
    assert result is not None
    assert result.picked["b"].status is SampleStatus.FRESH  # t0 is the slower source's stamp
    aligner = Aligner([SourceSpec("a"), SourceSpec("b", "hold", 0.05, 0.5)], max_skew=1.0)
    aligner.push("b", 0.0, "old")
    aligner.push("a", 0.6, "new")  # b is beyond its timeout, so a alone sets t0
    result = aligner.align(0.6)
    assert result is not None and "b" in result.reason
    assert aligner.dropped == 1


def test_drop_policy_uses_a_sample_once() -> None:
    aligner = Aligner([SourceSpec("a"), SourceSpec("b", "drop", 0.5, 1.0)], max_skew=1.0)
    aligner.push("b", 0.0, 1)
    aligner.push("a", 0.0, 1)
    first = aligner.align(0.0)
    assert first is not None and first.reason == ""
    aligner.push("a", 0.1, 2)
    assert aligner.align(0.1) is None  # the slower source has brought nothing new


def test_clock_set_back_does_not_block_a_source() -> None:
    aligner = Aligner([SourceSpec("a")], max_skew=1.0)
    aligner.push("a", 1000.0, 1)
    assert aligner.align(1000.0) is not None
    assert not aligner.push("a", 999.9, 2)
    assert aligner.push("a", 10.0, 3)
    result = aligner.align(10.0)
    assert result is not None and result.picked["a"].value == 3


RGB = np.random.default_rng(1).integers(0, 256, (6, 8, 3), dtype=np.uint8)


def image(pixels: np.ndarray, encoding: str, padding: int = 0) -> SimpleNamespace:
    rows = pixels.reshape(pixels.shape[0], -1)
    rows = np.pad(rows, ((0, 0), (0, padding)))
    return SimpleNamespace(
        height=pixels.shape[0],
        width=pixels.shape[1],
        step=rows.shape[1],
        encoding=encoding,
        data=rows.tobytes(),
    )


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize(
    ("encoding", "pixels"),
    [
        ("rgb8", RGB),
        ("bgr8", RGB[:, :, ::-1]),
        ("rgba8", np.dstack([RGB, np.full((6, 8), 7, np.uint8)])),
        ("bgra8", np.dstack([RGB[:, :, ::-1], np.full((6, 8), 7, np.uint8)])),
    ],
)
def test_colour_encodings_give_the_same_rgb(encoding, pixels, padding) -> None:
    np.testing.assert_array_equal(decode(image(pixels, encoding, padding)), RGB)


def test_mono_becomes_grey_rgb() -> None:
    grey = RGB[:, :, 0]
    np.testing.assert_array_equal(decode(image(grey, "mono8")), np.dstack([grey] * 3))


@pytest.mark.parametrize("extension", [".png", ".jpg"])
def test_compressed_images(extension: str) -> None:
    smooth = np.full((32, 32, 3), (200, 80, 20), np.uint8)
    data = cv2.imencode(extension, smooth[:, :, ::-1])[1].tobytes()
    back = decode(SimpleNamespace(format=extension[1:], data=data))
    assert np.max(np.abs(back.astype(int) - smooth)) <= 4


def test_wrong_encoding_names_what_is_accepted() -> None:
    with pytest.raises(ImageError, match="'16UC1' is not supported; set the driver to one of rgb8"):
        decode(image(RGB, "16UC1"))


def test_truncated_images_are_refused() -> None:
    short = image(RGB, "rgb8")
    short.data = short.data[:-1]
    with pytest.raises(ImageError, match="do not hold a 8x6"):
        decode(short)
    with pytest.raises(ImageError, match="cannot be decoded"):
        decode(SimpleNamespace(format="jpeg", data=b"\xff\xd8nonsense"))


def test_resize_keeps_the_whole_picture() -> None:
    wide = np.zeros((480, 640, 3), np.uint8)
    wide[:, :40], wide[:, -40:] = 255, 128
    small = fit(wide, 320, 176)
    assert small.shape == (176, 320, 3)
    assert small[88, 5, 0] == 255 and small[88, -5, 0] == 128


ARM = StateSource("arm", "/arm", "sensor_msgs/msg/JointState", ("j1", "j2"))


def test_joints_by_name_in_any_order_with_extra_ones() -> None:
    message = SimpleNamespace(name=["x", "j2", "j1"], position=[9.0, 2.0, 1.0])
    assert read(message, ARM) == {"j1": 1.0, "j2": 2.0}


def test_vendor_message_by_field_path_and_order() -> None:
    source = StateSource(
        "head", "/head", "v/msg/T", ("yaw", "pitch"), field="motor_states[].position",
        names_field="", scale=2.0, offset=1.0,
    )  # fmt: skip
    motors = [SimpleNamespace(position=0.5), SimpleNamespace(position=1.0)]
    assert read(SimpleNamespace(motor_states=motors), source) == {"yaw": 2.0, "pitch": 3.0}


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (SimpleNamespace(name=["j1"], position=[1.0]), "has no joint 'j2'"),
        (SimpleNamespace(name=["j1", "j2"], position=[1.0, float("nan")]), "'j2' is nan"),
        (SimpleNamespace(name=[], position=[1.0]), "brings 1 values"),
        (SimpleNamespace(name=["j1"]), "no field 'position'"),
    ],
)
def test_bad_joint_states_name_the_joint(message: SimpleNamespace, text: str) -> None:
    with pytest.raises(JointError, match=text):
        read(message, ARM)


@given(
    period=st.floats(0.01, 0.2),
    jitter=st.floats(0.0, 0.2),
    loss=st.floats(0.0, 0.7),
    seed=st.integers(0, 10_000),
)
def test_lost_share_is_told_from_gaps_whatever_the_rate(period, jitter, loss, seed) -> None:
    rng = np.random.default_rng(seed)
    kept = np.flatnonzero(rng.random(400) >= loss)
    stamps = kept * period + rng.uniform(-0.5, 0.5, len(kept)) * jitter * period
    true = 1.0 - (len(kept) - 1) / (kept[-1] - kept[0])
    assert lost_share(stamps.tolist()) == pytest.approx(true, abs=0.06)


def test_too_few_stamps_say_nothing() -> None:
    assert lost_share([0.0, 1.0, 5.0]) == 0.0
    assert lost_share([1.0] * 20) == 0.0
