"""State vectors into the model and action vectors out of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wam_ros.wam.normalize import Statistics, denormalize, normalize

Array = NDArray[np.floating[Any]]


def state_vector(
    state: Mapping[str, Array],
    keys: Sequence[str],
    statistics: Mapping[str, Statistics],
    size: int,
    modes: Mapping[str, str] | None = None,
) -> Array:
    """Normalise and join the state keys, and pad with zeros.

    Parameters
    ----------
    state
        Key -> [T, dim] raw values (rad, 0..1 for grippers, as in the dataset).
    keys
        Order of the keys.
    statistics
        By key.
    size
        Width of the model's state input (64).
    modes
        Normalisation mode by key, q99 where not named.

    Returns
    -------
    Array
        float64 [T, size].

    Raises
    ------
    ValueError
        If a key is missing, has the wrong number of dimensions, or the vector exceeds `size`.
    """
    parts = []
    for key in keys:
        value = np.asarray(_get(state, key, "state"), dtype=np.float64)
        stats = _get(statistics, key, "state statistics")
        if value.ndim != 2 or value.shape[1] != stats.dim:
            raise ValueError(f"state '{key}' has shape {value.shape}, expected [T, {stats.dim}]")
        parts.append(normalize(value, stats, (modes or {}).get(key, "q99")))
    vector = np.concatenate(parts, axis=1)
    if vector.shape[1] > size:
        raise ValueError(f"the state has {vector.shape[1]} values, the model takes {size}")
    return np.pad(vector, ((0, 0), (0, size - vector.shape[1])))


def split_actions(
    actions: Array,
    keys: Sequence[str],
    statistics: Mapping[str, Statistics],
    modes: Mapping[str, str] | None = None,
) -> dict[str, Array]:
    """Split the model's action vectors into keys and undo the normalisation, in float32.

    Parameters
    ----------
    actions
        [B, rows, width], the model's output; what is behind the last key is padding.
    keys, statistics, modes
        As in `state_vector`, of the actions.

    Returns
    -------
    dict
        Key -> float32 [B, rows, dim].

    Raises
    ------
    ValueError
        If statistics are missing, or do not fit the rows or the width.
    """
    x = np.asarray(actions, dtype=np.float32)
    out, start = {}, 0
    for key in keys:
        stats = _get(statistics, key, "action statistics")
        rows = stats.min.shape[0] if stats.min.ndim == 2 else x.shape[-2]
        if rows != x.shape[-2]:
            raise ValueError(
                f"statistics of '{key}' are for {rows} action rows, there are {x.shape[-2]}"
            )
        stop = start + stats.dim
        if stop > x.shape[-1]:
            raise ValueError(f"action '{key}' ends at {stop}, the model gives {x.shape[-1]} values")
        out[key] = denormalize(x[..., start:stop], stats, (modes or {}).get(key, "q99"))
        start = stop
    return out


def to_absolute(
    actions: Mapping[str, Array], state: Mapping[str, Array], relative: Sequence[str]
) -> dict[str, Array]:
    """Add the newest raw state to the relative keys; every row gets the same state.

    Parameters
    ----------
    actions
        Key -> [B, rows, dim] in raw units.
    state
        Key -> [T, dim] raw float64, the state sent with this call.
    relative
        Keys to convert; the others stay as they are.

    Returns
    -------
    dict
        Relative keys float64, because the state is; others float32.

    Raises
    ------
    ValueError
        If a relative key has no state of that name.
    """
    out = dict(actions)
    for key in relative:
        if key in actions:
            last = np.asarray(_get(state, key, "state"), dtype=np.float64)[-1]
            out[key] = actions[key] + last
    return out


def squeeze(actions: Mapping[str, Array]) -> dict[str, Array]:
    """Drop the batch axis as the release does: all axes of length one go.

    A key of one dimension comes out as [rows], the others as [rows, dim]; clients rely on it.
    """
    return {key: np.squeeze(value) for key, value in actions.items()}


def chunk(actions: Mapping[str, Array], keys: Sequence[str]) -> Array:
    """One float32 [rows, sum of dims] array for the executor, keys side by side.

    Takes batches of one, before or after `squeeze`.
    """
    rows = max(np.squeeze(v).shape[0] if np.squeeze(v).ndim else 1 for v in actions.values())
    parts = [np.asarray(actions[key], dtype=np.float32).reshape(rows, -1) for key in keys]
    return np.concatenate(parts, axis=1)


def _get(mapping: Mapping[str, Any], key: str, what: str) -> Any:
    if key not in mapping:
        raise ValueError(f"{what}: no '{key}'; there are {', '.join(mapping) or 'none'}")
    return mapping[key]
