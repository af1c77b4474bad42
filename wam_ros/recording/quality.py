"""Figures a person judges an episode by, and flags that explain themselves."""

from __future__ import annotations

from typing import Any

import numpy as np

from wam_ros.contract.data import FloatArray
from wam_ros.contract.model import Contract
from wam_ros.recording.rows import Rows
from wam_ros.recording.rules import gaps
from wam_ros.recording.series import Recording, Series

IDLE_SPEED = 0.01
"""rad/s or m/s: an arm whose joints are all slower than this is idle."""
SPIKE = 1.5
"""An action step counts as a spike beyond this many times what the velocity limit allows."""
IDLE_SHARE, SPIKE_SHARE, NEAR_LIMIT = 0.5, 0.0, 0.02


def measure(contract: Contract, recording: Recording, rows: Rows) -> dict[str, Any]:
    """Everything the report shows of one episode, as plain JSON values.

    Units: seconds, Hz, rad or m (0..1 for grippers); jerk per s³; shares are 0..1.
    """
    period = contract.rates.step_period
    state, action = rows.state, rows.action
    figures = {
        "rows": len(rows.t),
        "duration_s": round(len(rows.t) * period, 3),
        "trimmed_s": round(rows.trimmed, 3),
        "sources": {
            name: _source(series, recording)
            for name, series in {**recording.cameras, **recording.sources}.items()
        },
        "commands": {c.name: _source(s, recording) for c, s in recording.commands if s.received},
        "skew_p50_ms": round(float(np.median(rows.skew)) * 1e3, 2),
        "skew_p99_ms": round(float(np.percentile(rows.skew, 99)) * 1e3, 2),
        "image_age_p50_ms": _age(contract, rows),
        "held_share": round(float(rows.held.mean()), 4),
        "human_share": round(float(rows.human.mean()), 4),
        "gaps": [
            {"at_s": round(a * period, 2), "seconds": round((b - a) * period, 3), "why": why}
            for a, b, why in gaps(rows)
        ],
        "idle_share": round(_idle(contract, state, period), 4),
        "spikes": _spikes(contract, action, period),
        "jerk_p95": round(_jerk(contract, state, period), 2),
        "command_lag_ms": _lag(contract, rows, period),
        "joints": _ranges(contract, state, action),
    }
    figures["flags"] = flags(figures, contract)
    return figures


def _source(series: Series, recording: Recording) -> dict[str, Any]:
    if len(series.stamps) < 2:
        return {"messages": series.received, "rate_hz": 0.0, "longest_gap_s": None, "faults": []}
    stamps = np.asarray(series.stamps)
    steps = np.diff(stamps)
    return {
        "messages": series.received,
        "rate_hz": round(float(1.0 / max(1e-9, np.median(steps))), 2),
        "mean_rate_hz": round(float(len(steps) / (stamps[-1] - stamps[0])), 2),
        "longest_gap_s": round(float(steps.max()), 4),
        "jitter_p95_ms": round(float(np.percentile(np.abs(steps - np.median(steps)), 95)) * 1e3, 2),
        "delay_p50_ms": round(float(np.median(np.asarray(series.arrivals) - stamps)) * 1e3, 2),
        "out_of_order": series.out_of_order,
        "clock_jump_s": round(series.jump(), 3),
        "faults": [f"{n}x {text}" for text, n in series.faults.items()],
        "start_s": round(float(stamps[0] - recording.start), 3),
    }


def _age(contract: Contract, rows: Rows) -> float:
    ages = [np.nanmedian(rows.ages[c.name]) for c in contract.cameras]
    return round(float(max(ages)) * 1e3, 2)


def _arms(contract: Contract, names: tuple[str, ...]) -> list[int]:
    return [i for i, n in enumerate(names) if contract.group_of(n).role == "arm"]


def _idle(contract: Contract, state: FloatArray, period: float) -> float:
    """Share of the time in which no arm joint moves faster than `IDLE_SPEED`."""
    columns = _arms(contract, contract.state_names)
    if len(state) < 2 or not columns:
        return 0.0
    speed = np.abs(np.diff(state[:, columns], axis=0)) / period
    return float(np.mean(speed.max(axis=1) < IDLE_SPEED))


def _spikes(contract: Contract, action: FloatArray, period: float) -> list[dict[str, Any]]:
    found = []
    joints = contract.joints
    for i, (name, kind) in enumerate(
        zip(contract.action_names, contract.action_kinds, strict=True)
    ):
        if kind != "position" or contract.group_of(name).role == "gripper":
            continue
        allowed = SPIKE * joints[name].limits.velocity * period
        steps = np.abs(np.diff(action[:, i]))
        for k in np.flatnonzero(steps > allowed):
            found.append(
                {"joint": name, "at_s": round(float(k + 1) * period, 2),
                 "step": round(float(steps[k]), 4), "allowed": round(allowed, 4)}
            )  # fmt: skip
    return found


def _jerk(contract: Contract, state: FloatArray, period: float) -> float:
    """95th percentile of the largest joint jerk of the arms, from third differences."""
    columns = _arms(contract, contract.state_names)
    if len(state) < 4 or not columns:
        return 0.0
    jerk = np.abs(np.diff(state[:, columns], n=3, axis=0)) / period**3
    return float(np.percentile(jerk.max(axis=1), 95))


def _lag(contract: Contract, rows: Rows, period: float, most: float = 0.6) -> float | None:
    """Milliseconds by which the arms follow their commands: the shift with the least distance.

    None when the arms hardly move, for then every shift fits.
    """
    names = [n for n in contract.state_names if n in contract.action_names]
    names = [n for n in names if contract.group_of(n).role == "arm"]
    s = rows.state[:, [contract.state_names.index(n) for n in names]]
    a = rows.action[:, [contract.action_names.index(n) for n in names]]
    shifts = range(min(round(most / period), len(s) // 4) + 1)
    if not names or len(s) < 8 or float(np.ptp(a, axis=0).max()) < 0.05:
        return None
    errors = [float(np.mean((s[k:] - a[: len(a) - k]) ** 2)) for k in shifts]
    return round(float(np.argmin(errors)) * period * 1e3, 1)


def _ranges(contract: Contract, state: FloatArray, action: FloatArray) -> list[dict[str, Any]]:
    out = []
    for i, name in enumerate(contract.state_names):
        limits = contract.joints[name].limits
        told = contract.action_names
        column = action[:, told.index(name)] if name in told else None
        out.append(
            {
                "joint": name,
                "role": contract.group_of(name).role,
                "lower": limits.lower,
                "upper": limits.upper,
                "state_min": round(float(state[:, i].min()), 5),
                "state_max": round(float(state[:, i].max()), 5),
                "action_min": round(float(column.min()), 5) if column is not None else None,
                "action_max": round(float(column.max()), 5) if column is not None else None,
            }
        )
    return out


def flags(figures: dict[str, Any], contract: Contract) -> list[dict[str, str]]:
    """What deserves a look: ``what`` it is, ``why`` it matters, and ``todo``."""
    found: list[dict[str, str]] = []

    def flag(what: str, why: str, todo: str) -> None:
        found.append({"what": what, "why": why, "todo": todo})

    rates = {c.name: figures["sources"][c.name].get("mean_rate_hz", 0.0) for c in contract.cameras}
    slow = {n: r for n, r in rates.items() if r < 0.8 * contract.rates.action}
    if slow:
        flag(
            f"few pictures: {', '.join(f'{n} {r:.1f} Hz' for n, r in slow.items())}",
            f"Rows come at {contract.rates.action:g} Hz, so pictures repeat and the model sees "
            "motion in steps.",
            "Raise the camera's rate, or look for lost frames (wam doctor).",
        )
    if figures["idle_share"] > IDLE_SHARE:
        flag(
            f"idle for {figures['idle_share']:.0%} of the time",
            f"No arm joint moves faster than {IDLE_SPEED} rad/s. A policy trained on it learns to "
            "stand still.",
            "Start and stop closer to the motion.",
        )
    if figures["spikes"]:
        worst = max(figures["spikes"], key=lambda s: s["step"] / s["allowed"])
        flag(
            f"{len(figures['spikes'])} action spikes",
            f"{worst['joint']} is told to move {worst['step']:.3f} in one row at {worst['at_s']} s;"
            f" its velocity limit allows {worst['allowed'] / SPIKE:.3f}. Spikes widen the 1 % and "
            "99 % quantiles that actions are normalised with.",
            "Look at the plot; leave the episode out if the jump is an artefact.",
        )
    runs = figures["gaps"]
    if runs:
        longest = max(runs, key=lambda g: g["seconds"])
        total = sum(g["seconds"] for g in runs)
        flag(
            f"{len(runs)} gap{'s' if len(runs) > 1 else ''}, {total:.2f} s in all",
            f"Longest {longest['seconds']:.2f} s at {longest['at_s']} s: {longest['why']}. Rows "
            "repeat the last good one there.",
            "Windows across a gap are not used as training anchors.",
        )
    if figures["held_share"] > 0.1:
        flag(
            f"{figures['held_share']:.0%} of the rows use an old joint state",
            "State and picture are then apart by more than the source's tolerance.",
            "Check the driver's rate and load.",
        )
    for j in figures["joints"]:
        span = j["upper"] - j["lower"]
        low, high = j["state_min"] - j["lower"], j["upper"] - j["state_max"]
        if min(low, high) < -NEAR_LIMIT * span:
            flag(
                f"{j['joint']} leaves its limits",
                f"Measured {j['state_min']:.3f} to {j['state_max']:.3f}, limits {j['lower']:.3f} "
                f"to {j['upper']:.3f}.",
                "Check units and zero of the joint, or the limits in the contract.",
            )
    for name, source in {**figures["sources"], **figures["commands"]}.items():
        if source.get("clock_jump_s"):
            flag(
                f"the clock of {name} jumped by {source['clock_jump_s']:+.2f} s",
                "Its samples before and after do not belong to the same time line.",
                "Synchronise the driver's clock (chrony, PTP), or use `timeline: receive`.",
            )
        for fault in source.get("faults", ()):
            flag(f"unusable messages from {name}", fault, "Fix the driver or the contract.")
    return found
