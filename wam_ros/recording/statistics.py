"""The statistics DreamZero normalises with, over whole columns and over relative windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from wam_ros.contract.data import FloatArray

Stats = dict[str, list[float]]


def describe(data: FloatArray) -> Stats:
    """Per column of ``(N, D)``: mean, population std, extremes, linear 1 % and 99 % quantiles."""
    values = np.asarray(data, dtype=np.float64)
    return {
        "mean": values.mean(axis=0).tolist(),
        "std": values.std(axis=0).tolist(),
        "min": values.min(axis=0).tolist(),
        "max": values.max(axis=0).tolist(),
        "q01": np.quantile(values, 0.01, axis=0).tolist(),
        "q99": np.quantile(values, 0.99, axis=0).tolist(),
    }


def relative(
    episodes: Sequence[tuple[FloatArray, FloatArray]],
    keys: Sequence[str],
    state: Mapping[str, tuple[int, int]],
    action: Mapping[str, tuple[int, int]],
    horizon: int,
) -> dict[str, Stats]:
    """Statistics of ``action[i .. i+horizon-1] - state[i]`` for every ``i`` up to ``T-horizon-1``.

    ``episodes`` holds ``(state (T, S), action (T, A))`` pairs. That is the released converter's
    count of ``T - horizon`` windows; the trainer's own fall-back takes one fewer. A key without
    a slice in both vectors, or without a single window, is left out.
    """
    result: dict[str, Stats] = {}
    for key in keys:
        if key not in state or key not in action:
            continue
        (s0, s1), (a0, a1) = state[key], action[key]
        parts = []
        for states, actions in episodes:
            count = len(states) - horizon
            if count <= 0:
                continue
            s = np.asarray(states[:, s0:s1], dtype=np.float64)
            a = np.asarray(actions[:, a0:a1], dtype=np.float64)
            rows = np.arange(count)[:, None] + np.arange(horizon)
            parts.append((a[rows] - s[:count, None]).reshape(-1, a1 - a0))
        if parts:
            result[key] = describe(np.concatenate(parts))
    return {
        k: {n: v[n] for n in ("max", "min", "mean", "std", "q01", "q99")} for k, v in result.items()
    }
