"""The codec writes the recorded bytes and refuses what it should not read."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from wam_ros.serving import npy_codec
from wam_ros.serving.codec import CodecError, packb, unpackb
from wam_ros.serving.config import DROID_14B, ServerConfig

ARRAYS = hnp.arrays(
    dtype=st.one_of(
        hnp.integer_dtypes(), hnp.unsigned_integer_dtypes(), hnp.floating_dtypes(), st.just(bool)
    ),
    shape=hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
)


def recorded(golden: Path) -> dict[str, bytes]:
    return {p.stem: p.read_bytes() for p in (golden / "wire").glob("*.bin")}


def test_recorded_messages_come_back_byte_for_byte(golden: Path) -> None:
    files = recorded(golden)
    assert len(files) == 8
    assert {n: packb(unpackb(b)) for n, b in files.items()} == files


def test_recorded_messages_are_written_from_scratch(golden: Path) -> None:
    files = recorded(golden)
    flat = np.arange(6 * 8 * 3)
    views = [((7 * flat + k) % 256).astype(np.uint8).reshape(6, 8, 3) for k in (1, 2, 3)]
    said = unpackb(files["request_infer_single"])
    request = {
        "observation/exterior_image_0_left": views[0],
        "observation/exterior_image_1_left": views[1],
        "observation/wrist_image_left": views[2],
        "observation/joint_position": np.linspace(-1, 1, 7, dtype=np.float32),
        "observation/cartesian_position": said["observation/cartesian_position"],
        "observation/gripper_position": np.array([0.5], np.float32),
        "prompt": said["prompt"],
        "session_id": said["session_id"],
        "endpoint": "infer",
    }
    ours = {
        "request_infer_single": packb(request),
        "request_reset": packb({"endpoint": "reset"}),
        "handshake_default": packb(ServerConfig().to_wire()),
        "handshake_droid14b": packb(DROID_14B.to_wire()),
        "noncontiguous": packb(np.arange(12, dtype=np.int16).reshape(3, 4).T),
        "scalar": packb({"a": np.float32(1.5), "b": np.int64(-3), "c": np.bool_(True)}),
        "response_action": packb((np.arange(192).reshape(24, 8) / 100).astype(np.float32)),
    }
    assert ours == {n: files[n] for n in ours}


@settings(max_examples=150, deadline=None)
@given(ARRAYS)
def test_arrays_survive_both_codecs(array: np.ndarray) -> None:
    for back in (unpackb(packb(array)), npy_codec.unpackb(npy_codec.packb(array))):
        assert back.dtype == array.dtype and back.shape == array.shape
        assert back.tobytes() == array.tobytes()
    assert not unpackb(packb(array)).flags.writeable or array.size == 0


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_garbage_is_an_error_and_nothing_else(data: bytes) -> None:
    for read in (unpackb, npy_codec.unpackb):
        with contextlib.suppress(CodecError):
            read(data)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2363), st.integers(0, 255))
def test_a_damaged_request_is_an_error_or_still_a_message(place: int, value: int) -> None:
    golden = Path(__file__).resolve().parent.parent / "data" / "golden"
    data = bytearray((golden / "wire" / "request_infer_four.bin").read_bytes())
    data[place] = value
    with contextlib.suppress(CodecError):
        unpackb(bytes(data))


@pytest.mark.parametrize(
    "array",
    [np.array([1 + 2j]), np.array([object()]), np.zeros(2, dtype=[("a", "f4")])],
    ids=["complex", "object", "void"],
)
def test_dtypes_that_are_not_sent(array: np.ndarray) -> None:
    with pytest.raises(CodecError, match="not allowed"):
        packb(array)
    with pytest.raises(CodecError, match="not allowed"):
        npy_codec.packb(array)


def wire(**changed: Any) -> bytes:
    said = {b"__ndarray__": True, b"data": b"\0" * 8, b"dtype": "<f4", b"shape": [2]}
    said |= {k.encode(): v for k, v in changed.items()}
    return bytes(msgpack.packb(said))


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (wire(shape=[3]), "does not fit its data"),
        (wire(shape=[-1, -2]), "not a list of up to"),
        (wire(shape=[2**40, 2**40]), "does not fit"),
        (wire(shape="2"), "not a list"),
        (wire(dtype="O"), "not allowed"),
        (wire(dtype="|V8"), "not allowed"),
        (wire(dtype="nonsense"), "not a NumPy dtype"),
        (wire(data="text"), "does not fit"),
        (msgpack.packb({b"__ndarray__": True}), "without"),
        (msgpack.packb(msgpack.ExtType(5, b"x")), "extension"),
        (msgpack.packb({b"__npgeneric__": True, b"dtype": "<i8", b"data": "x"}), "scalar"),
        (b"\xc1", "not a msgpack message"),
        (packb({"a": 1}) + b"x", "not a msgpack message"),
        (b"\x91" * 5000, "not a msgpack message"),
        (packb(np.zeros(100)), "above the limit"),
    ],
)
def test_what_is_refused_says_why(data: bytes, text: str) -> None:
    with pytest.raises(CodecError, match=text):
        unpackb(data, max_bytes=700 if text == "above the limit" else 10_000)


def test_pickled_arrays_are_not_read() -> None:
    import io

    out = io.BytesIO()
    np.save(out, np.array([{}], dtype=object), allow_pickle=True)
    data = msgpack.packb({"__ndarray_class__": True, "as_npy": out.getvalue()})
    with pytest.raises(CodecError, match="not a npy file"):
        npy_codec.unpackb(data)


def test_things_that_cannot_be_sent() -> None:
    with pytest.raises(CodecError, match="set cannot be sent"):
        packb({"a": {1, 2}})
    with pytest.raises(CodecError, match="cannot be sent"):
        packb(2**70)
