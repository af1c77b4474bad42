"""msgpack with arrays as npy files inside, as GR00T N1.6 and N1.7 write it over ZeroMQ.

An array is ``{"__ndarray_class__": true, "as_npy": bytes}``; a modality description is
``{"__ModalityConfig_class__": true, "as_json": map}``. Pickled arrays are neither written nor read.
"""

from __future__ import annotations

import io
from typing import Any

import msgpack
import numpy as np

from wam_ros.serving.codec import MAX_BYTES, CodecError, check_dtype


def _encode(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if not isinstance(value, np.ndarray):
        raise CodecError(f"a {type(value).__name__} cannot be sent; use arrays, numbers, text")
    check_dtype(value.dtype)
    out = io.BytesIO()
    np.save(out, value, allow_pickle=False)
    return {"__ndarray_class__": True, "as_npy": out.getvalue()}


def _decode(found: dict[Any, Any]) -> Any:
    if "__ndarray_class__" in found:
        try:
            array = np.load(io.BytesIO(found["as_npy"]), allow_pickle=False)
        except Exception as err:
            raise CodecError(f"an array that is not a npy file: {err}") from err
        check_dtype(array.dtype)
        return array
    if "__ModalityConfig_class__" in found:
        return found.get("as_json", {})
    return found


def packb(value: Any) -> bytes:
    """Encode ``value``; CodecError for types and dtypes that cannot be sent."""
    try:
        return bytes(msgpack.packb(value, default=_encode))
    except (TypeError, OverflowError) as err:
        raise CodecError(f"cannot be sent: {err}") from err


def unpackb(data: bytes, max_bytes: int = MAX_BYTES) -> Any:
    """Decode one message; CodecError when it is too long or not of this form."""
    if len(data) > max_bytes:
        raise CodecError(f"message of {len(data)} bytes is above the limit of {max_bytes}")
    try:
        return msgpack.unpackb(data, object_hook=_decode, strict_map_key=False)
    except CodecError:
        raise
    except Exception as err:
        raise CodecError(f"not a msgpack message: {type(err).__name__}: {err}") from err
