"""Windows for joint_trajectory_controller keep the promises that single commands keep."""

from __future__ import annotations

import numpy as np
import pytest
from execution_bench import (
    DROID,
    SETTINGS,
    STREAMS,
    YAM,
    armed,
    bounds,
    chunk,
    examples,
    home,
    random_stream,
)
from hypothesis import given

from wam_ros.execution import Executor, Settings, execute
from wam_ros.execution.limiter import State

STEP, COUNT = 0.01875, 8
EVERY = 5  # ticks between windows: 100 Hz


def windows(
    core: Executor, arrivals, seconds: float, every: int = EVERY
) -> list[tuple[State, list[State]]]:
    """Reference and window every few ticks while ``arrivals`` are followed."""
    found: list[tuple[State, list[State]]] = []
    ticks = 0

    def look(_: float, reference: np.ndarray) -> np.ndarray:
        nonlocal ticks
        if ticks % every == 0:
            found.append((core.state, core.ahead(STEP, COUNT)))
        ticks += 1
        return reference

    period = 1.0 / core.contract.rates.control
    execute(core, arrivals, period * np.arange(round(seconds / period)), look)
    return found


def _quintic() -> np.ndarray:
    """``[3, 5, 6]``: position, velocity and acceleration at five times of a step, from its ends."""
    powers = np.arange(6)

    def row(t: float, order: int) -> np.ndarray:
        factor = np.array([np.prod(k - np.arange(order)) for k in powers], dtype=float)
        return factor * t ** np.maximum(powers - order, 0)

    fit = np.array([row(t, d) for t in (0.0, STEP) for d in range(3)])
    inner = np.linspace(0.0, STEP, 7)[1:-1]
    return np.array([[row(t, d) for t in inner] for d in range(3)]) @ np.linalg.inv(fit)


QUINTIC = _quintic()


def between(states: list[State]) -> np.ndarray:
    """``[3, K, 5, D]``: what the controller makes of a window between its points."""
    all_of = np.array(states)  # [K + 1, 3, D]
    ends = np.concatenate([all_of[:-1], all_of[1:]], axis=1)  # [K, 6, D]
    return np.einsum("dts,ksj->dktj", QUINTIC, ends)


@examples(25)
@given(stream=STREAMS, given=SETTINGS)
def test_a_window_stays_inside_every_limit(stream, given: Settings) -> None:
    contract = DROID if stream.pop("contract") is DROID else YAM
    core = armed(contract=contract, given=given)
    lower, upper, v_max, a_max, j_max = bounds(contract)
    arrivals = random_stream(contract=contract, seconds=0.9, **stream)
    for now, window in windows(core, arrivals, 1.2):
        p, v, a = (np.array(x) for x in zip(*window))
        assert np.all(p >= lower) and np.all(p <= upper)
        assert np.all(np.abs(v) <= v_max) and np.all(np.abs(a) <= a_max)
        jerk = np.diff([now[2], *a], axis=0) / STEP
        moving = np.any(v != 0.0, axis=0)  # a gripper is shown at rest where it is
        assert np.all(np.abs(jerk)[:, moving] <= j_max[moving] * 1.001)
        arm = [tuple(x[moving] for x in s) for s in (now, *window)]
        if moving.any():
            p, v, a = between(arm)
            assert np.all(p >= lower[moving] - 1e-4) and np.all(p <= upper[moving] + 1e-4)
            assert np.all(np.abs(v) <= 1.02 * v_max[moving])
            assert np.all(np.abs(a) <= 1.10 * a_max[moving])


@pytest.mark.parametrize(("size", "omega"), [(0.3, 3.0), (0.8, 4.5)], ids=["calm", "too fast"])
def test_a_window_shows_where_the_reference_will_be(size: float, omega: float) -> None:
    """One long chunk: nothing new comes, so the windows must come true, limited or not."""
    start = home(YAM)
    joint = YAM.control_names.index("left_joint2")
    swing = size * (1 - np.cos(omega * np.arange(48) / 30))
    rows = start + swing[:, None] * np.eye(len(start))[joint]
    core = armed(contract=YAM)
    found = windows(core, [(0.0, chunk(0.0, rows, contract=YAM))], 0.8, every=1)
    assert (core.counters.limiter_ticks > 50) == (omega > 4.0)
    came = np.array([now[0][joint] for now, _ in found])
    shown = np.array([window[1][0][joint] for _, window in found])  # 18.75 ticks ahead, twice
    ahead = np.interp(np.arange(len(found)) + 2 * STEP * 500, np.arange(len(found)), came)
    assert np.abs(shown - ahead)[: -round(2 * STEP * 500) - 1].max() < 5e-3


def test_a_path_inside_the_limits_is_shown_as_it_is() -> None:
    start = home(YAM)
    joint = YAM.control_names.index("left_joint2")
    swing = 0.2 * (1 - np.cos(2.0 * np.arange(24) / 30))
    rows = start + swing[:, None] * np.eye(len(start))[joint]
    core = armed(contract=YAM)
    windows(core, [(0.0, chunk(0.0, rows, contract=YAM))], 0.2)
    path = core._motion.ahead(STEP * np.arange(COUNT + 1))
    for shown, planned in zip(core.ahead(STEP, COUNT), path[1:]):
        np.testing.assert_array_equal(shown[0][joint], planned[0][joint])
