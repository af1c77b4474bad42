"""The path starts where the reference is, is C2 everywhere, and is the smoothest of its kind."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wam_ros.execution.clock import ClockMap
from wam_ros.execution.pace import Pace
from wam_ros.execution.place import Targets, ensemble, reanchor, savgol
from wam_ros.execution.plan import Path, fit, fit_within, smoothstep


def cost(path: Path, times: np.ndarray, rows: np.ndarray, tau: float) -> float:
    """The functional that `fit` minimises, integrated numerically."""
    grid = np.linspace(path.start, path.end, 4001)
    acceleration = np.array([path.sample(float(t))[2] for t in grid])
    step = grid[1] - grid[0]
    jerk = np.diff(acceleration, axis=0) / step
    h = np.mean(np.diff(path.times))
    misfit = float(np.sum((path.positions(times) - rows) ** 2)) * h
    return misfit + tau**6 * float(np.sum(jerk**2)) * step


def draw(seed: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    times = 0.02 + np.arange(count) / 30
    rows = rng.normal(0, 0.3, (count, 3))
    return times, rows, rng.normal(0, [[0.3], [0.5], [2.0]], (3, 3))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    count=st.integers(1, 48),
    tau=st.sampled_from([0.0, 0.03, 0.1, 0.3]),
    rest=st.booleans(),
)
def test_path_is_c2_and_starts_as_asked(seed: int, count: int, tau: float, rest: bool) -> None:
    times, rows, state = draw(seed, count)
    path = fit(0.0, state, times, rows, tau, rest)
    for ours, wanted in zip(path.sample(0.0), state, strict=True):
        np.testing.assert_allclose(ours, wanted, atol=1e-9)
    scale = 1.0 + path.extremes()
    for t in times[:-1]:
        before, after = path.sample(t - 1e-10), path.sample(t + 1e-10)
        for k in range(3):
            larger = scale[min(k, 2)].max()
            np.testing.assert_allclose(before[k], after[k], atol=1e-6 * larger)
    if rest:
        velocity, acceleration = path.sample(path.end)[1:]
        np.testing.assert_allclose(velocity, 0.0, atol=1e-8)
        np.testing.assert_allclose(acceleration, 0.0, atol=1e-6)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), tau=st.sampled_from([0.05, 0.1, 0.2]))
def test_no_other_path_costs_less(seed: int, tau: float) -> None:
    times, rows, state = draw(seed, 12)
    best = fit(0.0, state, times, rows, tau)
    least = cost(best, times, rows, tau)
    rng = np.random.default_rng(seed)
    for size in (1e-3, 1e-2, 0.1):
        other = fit(0.0, state, times, rows + rng.normal(0, size, rows.shape), tau)
        assert cost(other, times, rows, tau) >= least * (1 - 1e-3)


def test_no_smoothing_goes_through_every_row() -> None:
    times, rows, state = draw(3, 24)
    np.testing.assert_allclose(fit(0.0, state, times, rows, 0.0).positions(times), rows, atol=1e-4)


def test_smoothing_costs_no_delay() -> None:
    times = np.arange(1, 49) / 30
    rows = np.sin(2 * np.pi * 0.5 * times)[:, None]
    start = np.array([[0.0], [np.pi], [0.0]])
    path = fit(0.0, start, times, rows, 0.1)
    np.testing.assert_allclose(path.positions(times)[:40], rows[:40], atol=0.01)


def test_tail_does_not_come_to_rest() -> None:
    times = np.arange(1, 9) * 0.1
    path = fit(0.0, np.array([[0.0], [1.0], [0.0]]), times, times[:, None], 0.1)
    assert path.sample(0.79)[1][0] == pytest.approx(1.0, abs=1e-3)


def test_joints_beyond_their_limits_are_smoothed_more_and_the_others_not() -> None:
    times, _, _ = draw(1, 24)
    rows = np.zeros((24, 2))
    rows[12:, 0] = 0.2
    rows[12:, 1] = 0.001
    still = np.zeros((3, 2))
    limits = np.array([[2.0], [8.0], [400.0]]).repeat(2, axis=1)
    plain = fit(0.0, still, times, rows, 0.05)
    gentle = fit_within(0.0, still, (times, rows), 0.05, limits)
    assert plain.extremes()[1, 0] > 8.0 >= gentle.extremes()[1, 0]
    np.testing.assert_array_equal(gentle.coefficients[..., 1], plain.coefficients[..., 1])


def test_smoothstep_ends() -> None:
    np.testing.assert_allclose(smoothstep(np.array([-1.0, 0.0, 0.5, 1.0, 2.0])), [0, 0, 0.5, 1, 1])


def test_offset_is_taken_over_and_faded() -> None:
    new = Targets(np.arange(0, 1, 0.1), np.ones((10, 1)), 0.1)
    shifted = reanchor(new, 0.0, np.array([-0.2]), 0.5)
    assert shifted.rows[0, 0] == pytest.approx(0.8)
    assert shifted.rows[9, 0] == 1.0
    assert np.all(np.diff(shifted.rows[:, 0]) >= 0)


def test_ensemble_leaves_no_step_where_the_old_rows_end() -> None:
    old = Targets(np.arange(0, 0.8, 0.01), np.zeros((80, 1)), 0.01)
    new = Targets(np.arange(0.2, 1.0, 0.01), np.ones((80, 1)), 0.01)
    mixed = ensemble(new, old, 0.5)
    assert mixed.rows[0, 0] == 0.5 and mixed.rows[-1, 0] == 1.0
    assert np.abs(np.diff(mixed.rows[:, 0])).max() < 0.06


def test_savgol_keeps_a_cubic_and_calms_noise() -> None:
    t = np.linspace(0, 1, 24)[:, None]
    np.testing.assert_allclose(savgol(t**3 - t), t**3 - t, atol=1e-9)
    noise = np.random.default_rng(0).normal(0, 1, (24, 1))
    assert (
        np.abs(np.diff(savgol(noise), n=2, axis=0)).mean()
        < 0.3 * np.abs(np.diff(noise, n=2, axis=0)).mean()
    )


def test_pace_follows_the_clock_and_catches_up_after_skipped_ticks() -> None:
    pace = Pace(0.002)
    pace.restart(10.0)
    now = 10.0
    for tick in range(1500):
        now += 0.02 if tick == 100 else 0.002  # nine ticks are skipped once
        pace.advance(now)
        assert 0.95 <= pace.rate <= 1.05
    assert abs(pace.late(now)) < 1e-3


@pytest.mark.parametrize(("headroom", "least", "most"), [(1.0, 1.4, 1.65), (0.0, 1.0, 1.06)])
def test_pace_does_not_hurry_an_arm_that_lags(headroom: float, least: float, most: float) -> None:
    pace = Pace(0.002)
    pace.restart(0.0)
    pace.headroom = headroom
    now, rates = 0.0, []
    for _ in range(500):
        now += 0.003  # every third cycle is lost
        pace.advance(now)
        rates.append(pace.rate)
    assert least <= max(rates) <= most


def test_pace_slows_smoothly_and_knows_the_rows_consumed() -> None:
    pace = Pace(0.002)
    pace.restart(0.0)
    rates = []
    for k in range(1, 2000):
        pace.advance(0.002 * k, 0.5)
        rates.append(pace.rate)
    assert abs(rates[-1] - 0.5) < 0.06  # what is late may be caught up at 5 %
    assert np.abs(np.diff(rates)).max() < 0.01
    assert pace.at(0.5) > pace.at(0.4)
    assert pace.time - pace.at(2.0) == pytest.approx(0.5 * (0.002 * 1999 - 2.0), rel=0.15)


def test_clock_follows_slowly_and_reports_jumps() -> None:
    clock = ClockMap(100.0, 0.0)
    assert not clock.update(101.01, 1.0)  # 10 ms off: followed at 2 ms per second
    assert abs(clock.ros(1.0) - 101.002) < 1e-9
    assert clock.update(200.0, 2.0)
    assert clock.ros(2.0) == 200.0
