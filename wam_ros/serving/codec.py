"""msgpack with NumPy arrays, as openpi, RoboArena, DreamZero, vLLM-Omni and LingBot-VA write it.

An array is a map with the *bytes* keys ``__ndarray__``, ``data`` (C order), ``dtype`` and
``shape``; a NumPy scalar one with ``__npgeneric__``, ``data`` and ``dtype``. All other keys are
text. The bytes are the same as those of the PyPI package ``openpi-client``; that package is not
used because it asks for NumPy 1 and trusts what it reads.
"""

from __future__ import annotations

import math
from typing import Any

import msgpack
import numpy as np

MAX_BYTES = 64 * 1024 * 1024
"""Largest message, in bytes, that is read unless the caller says otherwise (vLLM-Omni's limit)."""
_REFUSED = frozenset("VOc")
_MAX_DIMS = 8


class CodecError(ValueError):
    """Bytes that are not a message of this protocol, or a value that cannot be sent."""


def check_dtype(text: Any) -> np.dtype[Any]:
    """The NumPy dtype called ``text``; refuses void, object and complex kinds."""
    try:
        dtype = np.dtype(text)
    except (TypeError, ValueError) as err:
        raise CodecError(f"{text!r} is not a NumPy dtype") from err
    if dtype.kind in _REFUSED:
        raise CodecError(f"dtype {dtype} is not allowed on the wire; send numbers, bools or text")
    return dtype


def _encode(value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic)):
        check_dtype(value.dtype)
    if isinstance(value, np.ndarray):
        return {
            b"__ndarray__": True,
            b"data": value.tobytes(),
            b"dtype": value.dtype.str,
            b"shape": value.shape,
        }
    if isinstance(value, np.generic):
        return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}
    raise CodecError(f"a {type(value).__name__} cannot be sent; use arrays, numbers, text, maps")


def _array(found: dict[Any, Any]) -> np.ndarray:
    try:
        data, dtype, shape = found[b"data"], check_dtype(found[b"dtype"]), found[b"shape"]
    except KeyError as err:
        raise CodecError(f"an array without {err.args[0]!r}") from err
    sizes_fit = isinstance(shape, list) and len(shape) <= _MAX_DIMS
    if not sizes_fit or not all(type(n) is int and n >= 0 for n in shape):
        raise CodecError(f"array shape {shape!r} is not a list of up to {_MAX_DIMS} sizes")
    if not isinstance(data, bytes) or len(data) != math.prod(shape) * dtype.itemsize:
        held = len(data) if isinstance(data, bytes) else type(data).__name__
        raise CodecError(f"array of shape {shape} and dtype {dtype} does not fit its data ({held})")
    if dtype.itemsize == 0:
        return np.empty(shape, dtype)
    return np.frombuffer(data, dtype=dtype).reshape(shape)


def _decode(found: dict[Any, Any]) -> Any:
    if b"__ndarray__" in found:
        return _array(found)
    if b"__npgeneric__" in found:
        try:
            return check_dtype(found[b"dtype"]).type(found[b"data"])
        except (KeyError, TypeError, ValueError, OverflowError) as err:
            raise CodecError(f"a NumPy scalar that cannot be read: {err!r}") from err
    return found


def _no_extension(code: int, data: bytes) -> Any:
    raise CodecError(f"msgpack extension type {code} is not part of this protocol")


def packb(value: Any) -> bytes:
    """Encode ``value``.

    Raises
    ------
    CodecError
        Types other than arrays, numbers, text, bytes, lists and maps; dtype kinds V, O and c.
    """
    try:
        return bytes(msgpack.packb(value, default=_encode))
    except (TypeError, OverflowError) as err:
        raise CodecError(f"cannot be sent: {err}") from err


def unpackb(data: bytes, max_bytes: int = MAX_BYTES) -> Any:
    """Decode one message; arrays come out read-only, on the message's own buffer.

    Raises
    ------
    CodecError
        More than ``max_bytes``, not msgpack, or an array whose parts contradict each other.
    """
    if len(data) > max_bytes:
        raise CodecError(f"message of {len(data)} bytes is above the limit of {max_bytes}")
    try:
        return msgpack.unpackb(
            data, object_hook=_decode, ext_hook=_no_extension, strict_map_key=False
        )
    except CodecError:
        raise
    except Exception as err:  # msgpack has no common base for what can be wrong with its input
        raise CodecError(f"not a msgpack message: {type(err).__name__}: {err}") from err
