"""Messages and containers carry the same values both ways."""

from __future__ import annotations

import numpy as np
import pytest

from wam_ros.contract.data import ActionChunk, Observation

convert = pytest.importorskip("wam_ros.nodes.convert", reason="needs ROS 2 and the built messages")


def chunk() -> ActionChunk:
    return ActionChunk(
        t0=1_764_000_000.123456,
        step_period=1 / 30,
        actions=np.arange(12.0).reshape(4, 3),
        names=("a", "b", "vx"),
        kinds=("position", "position", "velocity"),
        sequence=7,
        anchor_state=np.array([0.5, -0.5]),
        inference_start=10.25,
        inference_end=10.5,
        instruction="touch the red block",
        cadence="async",
        context_flags=1,
    )


def test_chunk_round_trip() -> None:
    back = convert.chunk_from_msg(convert.chunk_to_msg(chunk(), "agibot_g1"))
    for name, value in vars(chunk()).items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(getattr(back, name), value)
        elif isinstance(value, float):
            assert getattr(back, name) == pytest.approx(value, abs=1e-6)
        else:
            assert getattr(back, name) == value


def test_short_chunk_is_refused() -> None:
    msg = convert.chunk_to_msg(chunk(), "agibot_g1")
    msg.horizon = 5
    with pytest.raises(ValueError, match="12 actions do not fill 5 rows of 3 names"):
        convert.chunk_from_msg(msg)


def test_unknown_kind_is_refused() -> None:
    msg = convert.chunk_to_msg(chunk(), "agibot_g1")
    msg.kinds = [0, 0, 9]
    with pytest.raises(ValueError, match="kinds"):
        convert.chunk_from_msg(msg)


def test_trajectory_leaves_velocity_columns_out() -> None:
    msg = convert.chunk_to_trajectory(chunk())
    assert list(msg.joint_names) == ["a", "b"]
    assert list(msg.points[2].positions) == [6.0, 7.0]
    assert msg.points[3].time_from_start.nanosec == 100_000_000


def test_observation_round_trip() -> None:
    rng = np.random.default_rng(0)
    view = rng.integers(0, 256, (176, 320, 3), dtype=np.uint8)
    obs = Observation(
        t0=12.5, views={"head": view}, state=np.array([1.0, 2.0]), ages={"head": 0.01}, skew=0.25
    )
    back = convert.observation_from_msg(convert.observation_to_msg(obs, "g1", ("j1", "j2")))
    np.testing.assert_array_equal(back.views["head"], view)
    np.testing.assert_array_equal(back.state, obs.state)
    assert back.t0 == obs.t0
    assert back.skew == obs.skew
    assert back.ages["head"] == pytest.approx(0.01)
