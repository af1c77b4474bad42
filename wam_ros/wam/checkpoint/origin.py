"""Which weights adapters were trained on: kept beside them, since their names cannot reveal it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from wam_ros.jsonfile import write_json
from wam_ros.wam.checkpoint.errors import CheckpointError

FILE = "adapters.json"
"""Beside adapters of ours; the release has nothing of the kind."""
_SLICES, _SLICE = 17, 1 << 16


def weights_name(checkpoint: Path) -> str:
    """Short name of a checkpoint's weights, from a few slices of each file: gigabytes take seconds.

    The same weights elsewhere have the same name.
    """
    known = hashlib.blake2b(digest_size=8)
    for file in sorted(checkpoint.glob("*.safetensors")):
        size = file.stat().st_size
        known.update(f"{file.name} {size}".encode())
        with file.open("rb") as stream:
            for i in range(_SLICES):
                stream.seek(i * max(0, size - _SLICE) // (_SLICES - 1))
                known.update(stream.read(_SLICE))
    return known.hexdigest()


def note_base(folder: Path, base: Path) -> None:
    """Keep beside adapters in ``folder`` what they were trained on."""
    write_json(folder / FILE, {"base": str(base.resolve()), "weights": weights_name(base)})


def noted_base(folder: Path) -> Path | None:
    """The folder that adapters of ours were trained on, if it is still there.

    Raises
    ------
    CheckpointError
        It is, and holds other weights now.
    """
    file = folder / FILE
    if not file.is_file():
        return None
    try:
        noted = json.loads(file.read_text(encoding="utf-8"))
        base, weights = Path(noted["base"]), str(noted["weights"])
    except (ValueError, KeyError, TypeError) as err:
        raise CheckpointError(f"{file} cannot be read ({err}); name the base yourself") from err
    if not base.is_dir():
        return None
    if weights_name(base) != weights:
        raise CheckpointError(
            f"{folder} holds adapters for weights that {base} no longer has: it was trained on "
            "since. Tune again, or name a copy of the old weights as base"
        )
    return base
