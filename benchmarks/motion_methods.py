"""Ways from chunks to 500 Hz commands: ours and four that others use, as offline functions.

Each takes a stream and one parameter and returns commands ``(N, D)`` at ``times`` ``(N,)``. None of
the others is passed through our limiter: they are shown as they are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from motion_streams import Stream
from ruckig import InputParameter, Result, Ruckig, RuckigError, Trajectory
from scipy.interpolate import CubicSpline

from wam_ros.contract.data import FloatArray
from wam_ros.contract.model import Contract
from wam_ros.execution import Executor, Settings, execute

Run = Callable[[Contract, Stream, FloatArray, float], FloatArray]


@dataclass(frozen=True)
class Method:
    """A method and the grid of its one parameter."""

    name: str
    parameter: str
    grid: tuple[float, ...]
    run: Run


def _rows(contract: Contract, stream: Stream) -> list[tuple[float, FloatArray, FloatArray]]:
    """Arrival, due times (H,), control rows (H, D) of every chunk; sync rows start on arrival."""
    columns = [contract.action_names.index(n) for n in contract.control_names]
    result = []
    for arrival, chunk in stream.arrivals:
        start = arrival if chunk.cadence == "sync" else chunk.t0
        due = start + np.arange(chunk.horizon) * chunk.step_period
        result.append((arrival, due, chunk.actions[:, columns]))
    return result


def _home(contract: Contract) -> FloatArray:
    return np.array([contract.joints[n].home for n in contract.control_names])


def _linear(t: FloatArray, due: FloatArray, rows: FloatArray) -> FloatArray:
    return np.stack([np.interp(t, due, column) for column in rows.T], axis=1)


def _segments(
    contract: Contract, stream: Stream, times: FloatArray
) -> list[tuple[slice, FloatArray, FloatArray]]:
    """Ticks during which each chunk is the newest, with its rows."""
    chunks = _rows(contract, stream)
    edges = np.searchsorted(times, [c[0] for c in chunks] + [np.inf])
    return [(slice(edges[k], edges[k + 1]), c[1], c[2]) for k, c in enumerate(chunks)]


def ours(contract: Contract, stream: Stream, times: FloatArray, smoothing: float) -> FloatArray:
    """wam_ros's executor; the parameter is the path's smoothing time constant (s)."""
    core = Executor(contract, Settings(smoothing=smoothing))
    home = _home(contract)
    begin = float(times[0])
    core.set_measured(dict(zip(core.names, map(float, home), strict=True)), begin, resting=True)
    problem = core.arm(begin)
    assert not problem, problem
    return execute(core, stream.arrivals, map(float, times)).commands


def linear(contract: Contract, stream: Stream, times: FloatArray, constant: float) -> FloatArray:
    """Newest chunk, linear between rows; the parameter is a first-order filter's constant (s)."""
    out = np.tile(_home(contract), (len(times), 1))
    for ticks, due, rows in _segments(contract, stream, times):
        out[ticks] = _linear(times[ticks], due, rows)
    if constant > 0.0:
        share = 1.0 - np.exp(-(times[1] - times[0]) / constant)
        for k in range(1, len(out)):
            out[k] = out[k - 1] + share * (out[k] - out[k - 1])
    return out


def resting(contract: Contract, stream: Stream, times: FloatArray, stride: float) -> FloatArray:
    """A C2 cubic per chunk from the present state to rest at the last row; every stride-th row.

    As joint_trajectory_controller upsamples position-only chunks: position and velocity are
    carried over the seam, points in the past are dropped.
    """
    out = np.tile(_home(contract), (len(times), 1))
    state = (_home(contract), np.zeros(len(contract.control_names)))
    for ticks, due, rows in _segments(contract, stream, times):
        t = times[ticks]
        if not len(t):
            continue
        # A first knot close to the present would ask for any speed at all.
        keep = np.flatnonzero(due > t[0] + 0.5 * stride * (due[1] - due[0]))
        keep = keep[(len(due) - 1 - keep) % int(stride) == 0]
        if not len(keep):
            out[ticks] = state[0]
            state = (state[0], np.zeros_like(state[1]))
            continue
        knots = np.concatenate([[t[0]], due[keep]])
        points = np.vstack([state[0], rows[keep]])
        spline = CubicSpline(knots, points, bc_type=((1, state[1]), (1, np.zeros(rows.shape[1]))))
        inside = np.minimum(t, knots[-1])
        out[ticks] = spline(inside)
        after = t[-1] + (times[1] - times[0])
        moving = after <= knots[-1]
        last = min(after, knots[-1])
        state = (spline(last), spline(last, 1) if moving else np.zeros(rows.shape[1]))
    return out


def ensembling(contract: Contract, stream: Stream, times: FloatArray, decay: float) -> FloatArray:
    """Weighted mean of all chunks that cover a moment, weights exp(-decay * age in s)."""
    chunks = _rows(contract, stream)
    total = np.zeros((len(times), len(contract.control_names)))
    weight = np.zeros(len(times))
    for (arrival, due, rows), (_, chunk) in zip(chunks, stream.arrivals, strict=True):
        ticks = np.flatnonzero((times >= arrival) & (times <= due[-1]))
        if not len(ticks):
            continue
        w = np.exp(decay * (chunk.t0 - chunks[0][1][0]) - 50.0)
        total[ticks] += w * _linear(times[ticks], due, rows)
        weight[ticks] += w
    out = np.tile(_home(contract), (len(times), 1))
    for k in range(1, len(times)):
        out[k] = total[k] / weight[k] if weight[k] > 0 else out[k - 1]
    return out


def follower(contract: Contract, stream: Stream, times: FloatArray, share: float) -> FloatArray:
    """Ruckig towards the newest chunk at every tick, with a share of acceleration and jerk."""
    target = linear(contract, stream, times, 0.0)
    dt = float(times[1] - times[0])
    limits = [contract.joints[n].limits for n in contract.control_names]
    # Speed of the target by rows, zero across seams and where rows have run out.
    speed = np.zeros_like(target)
    for ticks, due, rows in _segments(contract, stream, times):
        slope = np.diff(rows, axis=0) / np.diff(due)[:, None]
        t = times[ticks]
        i = np.clip(np.searchsorted(due, t, side="right") - 1, 0, len(slope) - 1)
        live = ((t >= due[0]) & (t < due[-1]))[:, None]
        speed[ticks] = np.where(live, slope[i], 0.0)
    n = len(limits)
    ruckig, request, motion = Ruckig(n, dt), InputParameter(n), Trajectory(n)
    request.max_velocity = [x.velocity for x in limits]
    request.max_acceleration = [share * x.acceleration for x in limits]
    request.max_jerk = [share * x.jerk for x in limits]
    state = (target[0].tolist(), [0.0] * n, [0.0] * n)
    top = np.array(request.max_velocity)
    out = np.empty_like(target)
    for k in range(len(times)):
        request.current_position, request.current_velocity, request.current_acceleration = state
        request.target_position = target[k].tolist()
        request.target_velocity = np.clip(speed[k], -top, top).tolist()
        # It raises for some moving targets; as a user would, ask again for the target at rest.
        for _ in range(2):
            with contextlib.suppress(RuckigError):
                if ruckig.calculate(request, motion) in (Result.Working, Result.Finished):
                    state = motion.at_time(dt)
                    break
            request.target_velocity = [0.0] * n
        out[k] = state[0]
    return out


METHODS = (
    Method("wam_ros", "smoothing (s)", (0.03, 0.05, 0.07, 0.1, 0.14, 0.2, 0.28, 0.4), ours),
    Method("newest chunk, linear", "filter (s)", (0.0, 0.02, 0.05, 0.1, 0.2, 0.4), linear),
    Method("C2 spline, rests at end", "row stride", (1, 2, 3, 4, 6, 8), resting),
    Method("temporal ensembling", "decay (1/s)", (0.0, 0.5, 1.0, 2.0, 5.0, 20.0), ensembling),
    Method("Ruckig follower", "share of limits", (0.01, 0.03, 0.1, 0.3, 1.0), follower),
)
