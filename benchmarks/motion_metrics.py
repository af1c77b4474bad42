"""Smoothness and fidelity of a command stream."""

from __future__ import annotations

from typing import Any

import numpy as np
from motion_streams import Stream

from wam_ros.contract.data import FloatArray
from wam_ros.contract.model import Contract

_SETTLE = 1.0  # s at the start of longer streams that do not count


def lag_of(commands: FloatArray, times: FloatArray, stream: Stream) -> tuple[float, float]:
    """Shift (s) that brings commands closest to the intention, and the error (rad, r.m.s.) left."""
    shifts = np.arange(-0.1, 1.5, 0.01)
    kept = slice(0, len(times), 5)
    error = np.array(
        [np.sqrt(np.mean((commands[kept] - stream.truth(times[kept] - s)) ** 2)) for s in shifts]
    )
    k = int(np.argmin(error))
    if 0 < k < len(shifts) - 1:
        left, here, right = error[k - 1 : k + 2] ** 2
        bend = left - 2.0 * here + right
        part = 0.5 * (left - right) / bend if bend > 0 else 0.0
        return float(shifts[k] + 0.01 * part), float(error[k])
    return float(shifts[k]), float(error[k])


def measure(
    contract: Contract, stream: Stream, times: FloatArray, commands: FloatArray
) -> dict[str, Any]:
    """All figures of one run; grippers do not count."""
    names = contract.control_names
    arm = np.array([contract.group_of(n).role != "gripper" for n in names])
    limits = [contract.joints[n].limits for n, keep in zip(names, arm, strict=True) if keep]
    v_max, a_max, j_max = (
        np.array([getattr(x, k) for x in limits]) for k in ("velocity", "acceleration", "jerk")
    )
    dt = float(times[1] - times[0])
    p = commands[:, arm]
    v, a, j = (np.diff(p, n=n, axis=0) / dt**n for n in (1, 2, 3))
    start = int(_SETTLE / dt) if times[-1] > 5.0 * _SETTLE else 0
    lag, shape = lag_of(commands[start:], times[start:], stream)
    truth = stream.truth(times)[:, arm]
    moving = np.abs(np.diff(truth, axis=0)).max(axis=1) / dt > 0.05
    stalled = (np.abs(v).max(axis=1) < 1e-3) & moving
    seams = np.searchsorted(times, [t for t, _ in stream.arrivals])
    near = np.unique(np.clip(seams[:, None] + np.arange(-2, 2), 0, len(a) - 1))
    over = [
        (np.abs(x) > 1.001 * m + 1e-6).any(axis=1) for x, m in ((v, v_max), (a, a_max), (j, j_max))
    ]
    return {
        "lag_s": round(lag, 4),
        "jerk_rms": round(float(np.sqrt(np.mean(j[start:] ** 2))), 3),
        "jerk_p95": round(float(np.percentile(np.abs(j[start:]), 95)), 3),
        "jerk_max": round(float(np.abs(j).max()), 1),
        "acceleration_max": round(float(np.abs(a).max()), 2),
        "seam_jump_rad": float(f"{np.abs(a[near]).max() * dt * dt:.3g}"),
        "error_rms_rad": round(float(np.sqrt(np.mean((p - truth)[start:] ** 2))), 5),
        "shape_error_rms_rad": round(shape, 5),
        "stalled_share": round(float(stalled[start:].mean()), 4),
        "violating_ticks": int(sum(int(o.sum()) for o in over)),
    }
