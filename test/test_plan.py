"""The spline is C2 and the splice starts where the reference is."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from wam_ros.execution.clock import ClockMap
from wam_ros.execution.plan import fit, smoothstep, splice


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(2, 20))
def test_path_is_c2_and_starts_as_asked(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.uniform(0.02, 0.1, count))
    points = rng.normal(0, 1, (count, 3))
    v, a = rng.normal(0, 1, 3), rng.normal(0, 1, 3)
    path = fit(times, points, v, a)
    start = path.sample(times[0])
    np.testing.assert_allclose(start[0], points[0], atol=1e-9)
    np.testing.assert_allclose(start[1], v, atol=1e-9)
    np.testing.assert_allclose(start[2], a, atol=1e-7)
    for i in range(1, count - 1):
        before, after = path.sample(times[i] - 1e-9), path.sample(times[i] + 1e-9)
        np.testing.assert_allclose(before[0], points[i], atol=1e-5)
        np.testing.assert_allclose(before[1], after[1], atol=1e-3)
        np.testing.assert_allclose(before[2], after[2], rtol=1e-4, atol=1e-2)


def test_tail_does_not_come_to_rest() -> None:
    times = np.arange(5) * 0.1
    path = fit(times, np.arange(5.0)[:, None], np.array([10.0]), np.zeros(1))
    assert path.sample(0.399)[1][0] > 5.0


def test_splice_keeps_position_and_fades_the_offset() -> None:
    times = np.arange(24) / 30
    rows = np.full((24, 1), 1.0)
    reference = (np.array([0.8]), np.zeros(1), np.zeros(1))
    path, offset = splice(0.1, reference, times, rows, None, fade=0.3, blend=0.0)
    assert offset[0] == np.float64(0.8) - 1.0
    assert path.sample(0.1)[0][0] == 0.8
    assert abs(path.sample(0.6)[0][0] - 1.0) < 1e-9


def test_smoothstep_ends() -> None:
    np.testing.assert_allclose(smoothstep(np.array([-1.0, 0.0, 0.5, 1.0, 2.0])), [0, 0, 0.5, 1, 1])


def test_clock_follows_slowly_and_reports_jumps() -> None:
    clock = ClockMap(100.0, 0.0)
    assert not clock.update(101.01, 1.0)  # 10 ms off: followed at 2 ms per second
    assert abs(clock.ros(1.0) - 101.002) < 1e-9
    assert clock.update(200.0, 2.0)
    assert clock.ros(2.0) == 200.0
