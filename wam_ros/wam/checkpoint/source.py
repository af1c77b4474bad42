"""Where tensors come from: the released layout, or a folder of raw Wan weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wam_ros.wam.checkpoint.errors import CheckpointError, listing
from wam_ros.wam.checkpoint.layout import PREFIXES
from wam_ros.wam.checkpoint.safetensors_header import TensorInfo, read_header

if TYPE_CHECKING:
    from torch import Tensor

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"

# The raw Wan folders keep these beside the transformer's shards.
_WAN_FILES = {
    "models_t5_*.pth": PREFIXES["text"],
    "models_clip_*.pth": PREFIXES["image"].removesuffix("visual."),
    "Wan2.*_VAE.pth": PREFIXES["vae"],
}


@dataclass
class Source:
    """Stored tensors by name; reading one touches nothing else.

    `infos` says what there is. `get` reads one tensor to the CPU, mapped from the file where the
    format allows it.
    """

    folder: Path
    infos: dict[str, TensorInfo] = field(default_factory=dict)
    _files: dict[str, tuple[Path, str]] = field(default_factory=dict)
    _open: dict[Path, Any] = field(default_factory=dict)

    def get(self, name: str) -> Tensor:
        """Read one tensor; do not write into it."""
        path, key = self._files[name]
        if path not in self._open:
            self._open[path] = _opener(path)
        tensor: Tensor = self._open[path](key)
        return tensor

    def file(self, name: str) -> Path:
        """The file a tensor is stored in."""
        return self._files[name][0]

    def add(self, path: Path, infos: dict[str, TensorInfo], prefix: str = "") -> None:
        """Register a file's tensors, with something put before their names."""
        for key, info in infos.items():
            self.infos[prefix + key] = info
            self._files[prefix + key] = (path, key)

    def close(self) -> None:
        """Let go of the files."""
        self._open.clear()


def open_source(folder: Path) -> Source:
    """Find the weights of a folder.

    Raises
    ------
    CheckpointError
        If there are none, or files are missing, cut off, or disagree with their index.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder")
    source = Source(folder)
    if (folder / INDEX).is_file():
        _add_sharded(source, folder / INDEX)
    elif (folder / SINGLE).is_file():
        source.add(folder / SINGLE, read_header(folder / SINGLE))
    elif shards := sorted(folder.glob("model-*-of-*.safetensors")):
        raise CheckpointError(
            f"{folder}: {len(shards)} shards but no {INDEX}; copy the index of this checkpoint too"
        )
    elif wan := sorted(folder.glob("diffusion_pytorch_model*.safetensors")):
        _add_wan(source, wan)
    else:
        raise CheckpointError(
            f"{folder}: no weights; expected {SINGLE}, or {INDEX} with its shards "
            "(see docs/checkpoints.md)"
        )
    return source


def _add_sharded(source: Source, index: Path) -> None:
    try:
        placed: dict[str, str] = json.loads(index.read_text())["weight_map"]
        files = sorted(set(placed.values()))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CheckpointError(f"{index}: not an index (no 'weight_map')") from None
    absent = [name for name in files if not (index.parent / name).is_file()]
    if absent:
        raise CheckpointError(
            f"{index.parent}: {len(absent)} of {len(files)} shards are missing; download them:\n"
            + listing(absent)
        )
    for name in files:
        source.add(index.parent / name, read_header(index.parent / name))
    lost = sorted(name for name in placed if name not in source.infos)
    if lost:
        raise CheckpointError(
            f"{index}: {len(lost)} tensors are in no shard; shards and index are of different "
            "checkpoints:\n" + listing(lost)
        )


def _add_wan(source: Source, shards: list[Path]) -> None:
    for path in shards:
        source.add(path, read_header(path), PREFIXES["dit"])
    for pattern, prefix in _WAN_FILES.items():
        for path in sorted(source.folder.glob(pattern)):
            source.add(path, _pth_infos(path), prefix)


def _opener(path: Path) -> Callable[[str], Tensor]:
    if path.suffix == ".pth":
        state = load_pth(path)
        return state.__getitem__
    from safetensors import safe_open

    handle = safe_open(str(path), framework="pt", device="cpu")
    reader: Callable[[str], Tensor] = handle.get_tensor
    return reader


def load_pth(path: Path) -> dict[str, Tensor]:
    """Tensors of a ``.pth`` file, unpickled with ``weights_only``: no code in it can run.

    Raises
    ------
    CheckpointError
        If it holds anything but tensors, or is damaged.
    """
    import pickle

    import torch

    try:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError as error:
            if "mmap" not in str(error):
                raise
            # Files of the format before torch 1.6 cannot be mapped.
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"{path}: not loadable as plain weights ({reason}); files that hold code are refused, "
            "convert it to safetensors where you trust it"
        ) from None
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(torch.is_tensor(v) for v in state.values()):
        raise CheckpointError(f"{path}: expected a dictionary of tensors")
    return state


def _pth_infos(path: Path) -> dict[str, TensorInfo]:
    names = {"torch.bfloat16": "BF16", "torch.float16": "F16", "torch.float32": "F32"}
    return {
        k: TensorInfo(
            names.get(str(v.dtype), str(v.dtype)), tuple(v.shape), v.numel() * v.element_size()
        )
        for k, v in load_pth(path).items()
    }
