"""The closed-form stop is the time-optimal one, and its extent is known exactly."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from ruckig import ControlInterface, InputParameter, Ruckig, Synchronization, Trajectory

from wam_ros.execution.stop import stop

D = 12


def draw(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    a_max, jerk = rng.uniform(0.3, 20, D), rng.uniform(10, 5000, D)
    return rng.uniform(-3, 3, D), rng.uniform(-1, 1, D) * a_max, a_max, jerk


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 100_000))
def test_stop_is_the_one_ruckig_plans(seed: int) -> None:
    v, a, a_max, jerk = draw(seed)
    request = InputParameter(D)
    request.control_interface = ControlInterface.Velocity
    request.synchronization = Synchronization.No
    request.current_velocity, request.current_acceleration = v.tolist(), a.tolist()
    request.max_velocity = [100.0] * D
    request.max_acceleration, request.max_jerk = a_max.tolist(), jerk.tolist()
    request.target_velocity = [0.0] * D
    planned = Trajectory(D)
    Ruckig(D, 0.002).calculate(request, planned)
    mine = stop(v, a, a_max, jerk)
    for t in np.linspace(0.0, planned.duration, 25):
        for ours, theirs in zip(mine.at(float(t)), planned.at_time(float(t)), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-9)
    np.testing.assert_allclose(mine.duration.max(), planned.duration, atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 100_000))
def test_reach_and_peak_speed_bound_the_stop_tightly(seed: int) -> None:
    v, a, a_max, jerk = draw(seed)
    profile = stop(v, a, a_max, jerk)
    low, high = profile.reach()
    grid = [profile.at(float(t)) for t in np.linspace(0.0, profile.duration.max(), 3000)]
    x, u = np.array([g[0] for g in grid]), np.array([g[1] for g in grid])
    assert np.all(x >= low - 1e-9) and np.all(x <= high + 1e-9)
    np.testing.assert_allclose(x.min(axis=0), low, atol=2e-4)
    np.testing.assert_allclose(x.max(axis=0), high, atol=2e-4)
    assert np.all(np.abs(u).max(axis=0) <= profile.peak_speed() + 1e-9)


def test_a_joint_at_rest_stays() -> None:
    one = np.ones(1)
    profile = stop(0 * one, 0 * one, one, one)
    assert profile.duration[0] == 0.0
    assert [float(x[0]) for x in profile.at(1.0)] == [0.0, 0.0, 0.0]
