"""Figures of an open-loop run: how far predictions are off, per joint, key and row."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from wam_ros.contract.data import FloatArray
from wam_ros.contract.model import Contract
from wam_ros.policy.open_loop import Calls, stacked

MOVED = 1e-3
"""Joints with a smaller range (rad, m, 1) stood still: their error is not compared with it."""
_TRAVEL = 0.05


def ranges(calls: Sequence[Calls]) -> FloatArray:
    """Range ``(D,)`` from the 1st to the 99th percentile of every recorded action; NaN if none."""
    every = np.concatenate([c.action for c in calls])
    with _quiet():
        low, high = np.nanquantile(every, [0.01, 0.99], axis=0)
    return np.asarray(high - low, dtype=np.float64)


def summarise(contract: Contract, calls: Sequence[Calls]) -> dict[str, Any]:
    """Plain values for a table and a file.

    ``rows`` has, for the policy and every baseline, ``all``, ``keys``, ``joints`` and ``horizon``.
    Errors of a key or joint are in its own unit; ``normalised`` is the mean absolute error over the
    range of the joint's recorded actions, averaged over joints that moved. ``moving`` is that over
    the calls in which a recorded joint went through a twentieth of its range; an arm that rests is
    easy to predict.
    """
    spread = ranges(calls)
    scale = np.where(spread > MOVED, spread, np.nan)
    names, places = contract.action_names, {n: i for i, n in enumerate(contract.action_names)}
    keys = {k.key: [places[n] for n in k.joints] for k in contract.action}
    wanted = np.concatenate([np.stack(c.wanted) for c in calls])
    with _quiet():
        travel = (np.nanmax(wanted, axis=1) - np.nanmin(wanted, axis=1)) / scale
        moving = np.nanmax(travel, axis=1) > _TRAVEL
    rows: dict[str, Any] = {}
    for name, error in stacked(calls).items():
        rows[name] = {
            "all": {
                "normalised": _mean(np.abs(error) / scale),
                "moving": _mean(np.abs(error[moving]) / scale),
            },
            "keys": {k: _figures(error[..., at], scale[at]) for k, at in keys.items()},
            "joints": {n: _figures(error[..., [i]], scale[[i]]) for n, i in places.items()},
            "horizon": [_mean(np.abs(error[:, i]) / scale) for i in range(error.shape[1])],
        }
    seconds = np.concatenate([c.seconds for c in calls])
    surprise = np.concatenate([c.surprise for c in calls])
    return {
        "robot": contract.robot,
        "step_period": contract.rates.step_period,
        "bags": [
            {"bag": c.name, "instruction": c.instruction, "calls": len(c.rows), "rows": len(c.t)}
            for c in calls
        ],
        "calls": int(sum(len(c.rows) for c in calls)),
        "moving_calls": int(moving.sum()),
        "range": {n: _number(spread[i]) for n, i in places.items()},
        "still": [n for n in names if not spread[places[n]] > MOVED],
        "rows": rows,
        "latency": {q: float(np.percentile(seconds, int(q[1:]))) for q in ("p50", "p95")},
        "surprise": _mean(surprise),
    }


def _figures(error: FloatArray, scale: FloatArray) -> dict[str, float | None]:
    size = np.abs(error)
    with _quiet():
        return {
            "mae": _mean(size),
            "rmse": _number(np.sqrt(np.nanmean(size**2))),
            "max": _number(np.nanmax(size)) if np.isfinite(size).any() else None,
            "normalised": _mean(size / scale),
        }


def _mean(values: FloatArray) -> float | None:
    with _quiet():
        return _number(np.nanmean(values)) if values.size else None


def _number(value: Any) -> float | None:
    """A plain float; None where nothing was compared, because JSON has no NaN."""
    return float(value) if np.isfinite(value) else None


class _quiet(warnings.catch_warnings):  # type: ignore[type-arg]
    """Means over nothing are expected here and come out as None."""

    def __enter__(self) -> Any:
        found = super().__enter__()
        warnings.simplefilter("ignore", RuntimeWarning)
        return found
