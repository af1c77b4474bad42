"""Reading recorded reference data. A missing file raises FileNotFoundError: the runner says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor


def tensors(golden: Path, name: str, prefix: str = "") -> dict[str, Tensor]:
    """Tensors of a safetensors file whose names start with `prefix`, the prefix cut off."""
    from safetensors.torch import load_file

    path = need(golden, name)
    return {k[len(prefix) :]: v for k, v in load_file(path).items() if k.startswith(prefix)}


def file_metadata(golden: Path, name: str) -> dict[str, str]:
    """Metadata in the header of a safetensors file."""
    from safetensors import safe_open

    with safe_open(need(golden, name), framework="pt") as f:
        return dict(f.metadata() or {})


def arrays(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Arrays of an npz file."""
    with np.load(path) as data:
        return {name: data[name] for name in data.files}


def read_json(golden: Path, name: str) -> Any:
    """Content of a JSON file."""
    return json.loads(need(golden, name).read_text())


def need(golden: Path, name: str) -> Path:
    """Path of a file that must be there."""
    path = golden / name
    if not path.is_file():
        raise FileNotFoundError(name)
    return path


def find(golden: Path, pattern: str) -> list[Path]:
    """Files of a pattern, at least one."""
    paths = sorted(golden.glob(pattern))
    if not paths:
        raise FileNotFoundError(pattern)
    return paths


def shapes(state: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Shapes of a state."""
    return {name: tuple(t.shape) for name, t in state.items()}


def as_tensor(array: np.ndarray[Any, Any]) -> Tensor:
    """A tensor of the same dtype, for the comparisons of `result`."""
    return torch.from_numpy(np.ascontiguousarray(array))
