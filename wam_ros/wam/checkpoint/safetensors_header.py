"""Headers of safetensors files, read and checked without torch."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path

from wam_ros.wam.checkpoint.errors import CheckpointError


@dataclass(frozen=True)
class TensorInfo:
    """A stored tensor: dtype as safetensors spells it (BF16), shape, size in bytes."""

    dtype: str
    shape: tuple[int, ...]
    bytes: int


def read_header(path: Path) -> dict[str, TensorInfo]:
    """Name -> info of every tensor in a file.

    Raises
    ------
    CheckpointError
        If the file is missing, no safetensors file, or shorter than its header says.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as f:
            prefix = f.read(8)
            length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else -1
            if not 2 <= length <= size - 8 or length > 100_000_000:
                raise CheckpointError(_not_safetensors(path, size))
            text = f.read(length)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: not found") from None
    try:
        header = json.loads(text)
        header.pop("__metadata__", None)
        infos = {
            name: TensorInfo(
                entry["dtype"],
                tuple(entry["shape"]),
                entry["data_offsets"][1] - entry["data_offsets"][0],
            )
            for name, entry in header.items()
        }
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CheckpointError(_not_safetensors(path, size)) from None
    if 8 + length + end != size:
        raise CheckpointError(
            f"{path}: {size} bytes, its header promises {8 + length + end}; the file is cut off or "
            "damaged, copy or download it again"
        )
    return infos


def _not_safetensors(path: Path, size: int) -> str:
    return (
        f"{path}: no safetensors file, or cut off inside its header ({size} bytes); a few hundred "
        "bytes often mean a Git LFS pointer instead of the file"
    )
