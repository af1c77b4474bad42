"""Normalisation of state and action values by a dataset's statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
Mode = Literal["q99", "min_max", "mean_std", "scale", "binary"]
MODES: tuple[str, ...] = get_args(Mode)


@dataclass(frozen=True)
class Statistics:
    """Statistics of one key, each of shape [dim], or [horizon, dim] where kept per action row."""

    min: Array
    max: Array
    mean: Array
    std: Array
    q01: Array
    q99: Array

    @classmethod
    def from_json(cls, data: Mapping[str, Any], where: str = "statistics") -> Statistics:
        """Read one key's entry of ``metadata.json``.

        Raises
        ------
        ValueError
            If a statistic is missing, not a list of numbers, or of another shape than the rest.
        """
        names = ("min", "max", "mean", "std", "q01", "q99")
        missing = [name for name in names if name not in data]
        if missing:
            raise ValueError(f"{where}: {', '.join(missing)} missing")
        try:
            arrays = {name: np.asarray(data[name], dtype=np.float64) for name in names}
        except (TypeError, ValueError):
            raise ValueError(f"{where}: not lists of numbers") from None
        shapes = {a.shape for a in arrays.values()}
        if len(shapes) > 1 or not 1 <= len(next(iter(shapes))) <= 2:
            raise ValueError(f"{where}: shapes {sorted(shapes)}, expected one, [dim]")
        return cls(**arrays)

    @property
    def dim(self) -> int:
        """Number of dimensions of the key."""
        return int(self.min.shape[-1])

    def to_json(self) -> dict[str, Any]:
        """As lists."""
        return {name: getattr(self, name).tolist() for name in self.__dataclass_fields__}


def normalize(x: Array, statistics: Statistics, mode: str = "q99") -> Array:
    """Raw values to model values, in the dtype of x.

    q99 and min_max map [low, high] to [-1, 1] and clip; mean_std standardises; scale divides by the
    larger magnitude of min and max; binary is x > 0.5. Dimensions without spread pass unscaled
    (min_max: give 0; scale with nothing but zeros: give 0).

    Raises
    ------
    ValueError
        For an unknown mode.
    """
    _check(mode)
    if mode == "binary":
        return (x > 0.5).astype(x.dtype)
    if mode == "mean_std":
        mean, std = _like(x, statistics.mean, statistics.std)
        return np.where(std != 0, (x - mean) / _divisor(std), x)
    if mode == "scale":
        low, high = _like(x, statistics.min, statistics.max)
        bound = np.maximum(np.abs(low), np.abs(high))
        return np.where(bound != 0, x / _divisor(bound), np.zeros_like(x))
    low, high = _bounds(x, statistics, mode)
    span = high - low
    flat = x if mode == "q99" else np.zeros_like(x)
    return np.clip(np.where(span != 0, 2 * (x - low) / _divisor(span) - 1, flat), -1, 1)


def denormalize(x: Array, statistics: Statistics, mode: str = "q99") -> Array:
    """Model values to raw values, in the dtype of x; nothing is clipped.

    Raises
    ------
    ValueError
        For an unknown mode, or for scale, which has no inverse in the release.
    """
    _check(mode)
    if mode == "binary":
        return (x > 0.5).astype(x.dtype)
    if mode == "scale":
        raise ValueError("mode 'scale' has no inverse; use it for states only")
    if mode == "mean_std":
        mean, std = _like(x, statistics.mean, statistics.std)
        return x * std + mean
    low, high = _bounds(x, statistics, mode)
    return (x + 1) / 2 * (high - low) + low


def _check(mode: str) -> None:
    if mode not in MODES:
        raise ValueError(f"no normalisation mode '{mode}'; there are {', '.join(MODES)}")


def _bounds(x: Array, statistics: Statistics, mode: str) -> Sequence[Array]:
    if mode == "q99":
        return _like(x, statistics.q01, statistics.q99)
    return _like(x, statistics.min, statistics.max)


def _like(x: Array, *values: Array) -> Sequence[Array]:
    return [v.astype(x.dtype) for v in values]


def _divisor(spread: Array) -> Array:
    """The spread, with 1 where it is zero; those entries are replaced by the caller."""
    return np.where(spread != 0, spread, np.ones_like(spread))
