"""Normalisation, and states and actions of a robot, as properties."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from wam_ros.wam.actions import chunk, split_actions, squeeze, state_vector, to_absolute
from wam_ros.wam.adapter import Adapter
from wam_ros.wam.checkpoint.errors import CheckpointError
from wam_ros.wam.checkpoint.metadata import read_metadata
from wam_ros.wam.embodiments import EMBODIMENTS, embodiment
from wam_ros.wam.normalize import MODES, Statistics, denormalize, normalize
from wam_ros.wam.presets import tiny

values = st.floats(-5.0, 5.0, allow_subnormal=False)


def _statistics(low: np.ndarray, span: np.ndarray) -> Statistics:
    high = low + span
    return Statistics(low - span, high + span, (low + high) / 2, span, low, high)


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, Statistics]:
    dim = draw(st.integers(1, 4))
    low = draw(hnp.arrays(np.float64, dim, elements=values))
    span = draw(hnp.arrays(np.float64, dim, elements=st.floats(0.1, 3.0)))
    share = draw(hnp.arrays(np.float64, (5, dim), elements=st.floats(0.0, 1.0)))
    return low + share * span, _statistics(low, span)


@given(cases(), st.sampled_from(["q99", "min_max", "mean_std"]))
def test_inverse_undoes_forward_inside_the_range(
    case: tuple[np.ndarray, Statistics], mode: str
) -> None:
    x, statistics = case
    y = normalize(x, statistics, mode)
    np.testing.assert_allclose(denormalize(y, statistics, mode), x, atol=1e-12)
    if mode != "mean_std":
        assert np.all(np.abs(y) <= 1.0 + 1e-12)


@given(cases())
def test_forward_clips_and_inverse_does_not(case: tuple[np.ndarray, Statistics]) -> None:
    x, statistics = case
    far = x + 100.0
    assert np.all(normalize(far, statistics) == 1.0)
    assert np.all(denormalize(np.full_like(x, 3.0), statistics) > statistics.q99)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_is_kept_and_no_spread_gives_finite_numbers(mode: str, dtype: type) -> None:
    flat = np.zeros(2)
    statistics = Statistics(flat, flat, flat, flat, flat, flat)
    x = np.array([[0.5, -2.0]], dtype=dtype)
    y = normalize(x, statistics, mode)
    assert y.dtype == dtype
    assert np.isfinite(y).all()
    if mode == "q99":  # unscaled, then clipped
        assert y.tolist() == [[0.5, -1.0]]
    if mode == "mean_std":
        assert y.tolist() == x.tolist()


def test_modes_without_meaning_are_refused() -> None:
    s = _statistics(np.zeros(1), np.ones(1))
    with pytest.raises(ValueError, match="no inverse"):
        denormalize(np.zeros(1), s, "scale")
    with pytest.raises(ValueError, match="no normalisation mode 'q95'; there are q99"):
        normalize(np.zeros(1), s, "q95")


def _robot(tag: str, rows: int, seed: int = 0):  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(seed)
    known = embodiment(tag)
    state = {k: rng.normal(size=(1, d)) for k, d in known.state}
    statistics = {k: _statistics(rng.normal(size=d), np.ones(d)) for k, d in known.action}
    return known, state, statistics, rng.normal(size=(1, rows, 32)).astype(np.float32)


@pytest.mark.parametrize("tag", ["oxe_droid", "agibot", "yam"])
@pytest.mark.parametrize("rows", [24, 48])
def test_only_relative_keys_move_with_the_state(tag: str, rows: int) -> None:
    known, state, statistics, output = _robot(tag, rows)
    raw = split_actions(output, list(statistics), statistics)
    here = to_absolute(raw, state, known.relative)
    there = to_absolute(raw, {k: v + 1.0 for k, v in state.items()}, known.relative)
    for key, dim in known.action:
        assert here[key].shape == (1, rows, dim)
        moved = there[key] - here[key]
        np.testing.assert_allclose(moved, 1.0 if key in known.relative else 0.0, atol=1e-9)
    # All rows are relative to the same state, not to the row before.
    for key in known.relative:
        offset = np.broadcast_to(state[key], here[key].shape)
        np.testing.assert_allclose(here[key] - raw[key], offset, atol=1e-6)


def test_the_newest_state_counts() -> None:
    known, state, statistics, output = _robot("yam", 24)
    raw = split_actions(output, list(statistics), statistics)
    longer = {k: np.concatenate((v - 7.0, v)) for k, v in state.items()}
    for key, value in to_absolute(raw, longer, known.relative).items():
        np.testing.assert_array_equal(value, to_absolute(raw, state, known.relative)[key])


def test_full_squeeze_and_chunk_agree() -> None:
    known, state, statistics, output = _robot("oxe_droid", 24)
    actions = to_absolute(split_actions(output, list(statistics), statistics), state, ())
    flat = squeeze(actions)
    assert flat["gripper_position"].shape == (24,)
    assert flat["joint_position"].shape == (24, 7)
    keys = [k for k, _ in known.action]
    np.testing.assert_array_equal(chunk(flat, keys), chunk(actions, keys))
    assert chunk(flat, keys).shape == (24, 8)


def test_statistics_per_row() -> None:
    low = np.arange(6.0).reshape(3, 2)
    per_row = {"a": _statistics(low, np.ones((3, 2)))}
    out = split_actions(np.full((1, 3, 4), -1.0), ["a"], per_row)
    np.testing.assert_allclose(out["a"][0], low)
    with pytest.raises(ValueError, match="for 3 action rows, there are 24"):
        split_actions(np.zeros((1, 24, 4)), ["a"], per_row)


def test_bad_states_and_actions_are_named() -> None:
    s = {"arm": _statistics(np.zeros(2), np.ones(2))}
    with pytest.raises(ValueError, match="state: no 'arm'; there are leg"):
        state_vector({"leg": np.zeros((1, 2))}, ["arm"], s, 64)
    with pytest.raises(ValueError, match=r"state 'arm' has shape \(1, 3\), expected \[T, 2\]"):
        state_vector({"arm": np.zeros((1, 3))}, ["arm"], s, 64)
    with pytest.raises(ValueError, match="has 2 values, the model takes 1"):
        state_vector({"arm": np.zeros((1, 2))}, ["arm"], s, 1)
    with pytest.raises(ValueError, match="ends at 2, the model gives 1"):
        split_actions(np.zeros((1, 24, 1)), ["arm"], s)


def test_relative_keys_are_actions_that_have_a_state() -> None:
    for known in EMBODIMENTS.values():
        assert set(known.relative) <= {k for k, _ in known.action} & {k for k, _ in known.state}


def test_adapter_joins_config_statistics_and_embodiment(golden: Path) -> None:
    metadata = read_metadata(golden / "metadata.json")
    config = tiny(action_rows=24)
    config = replace(config, dit=replace(config.dit, action_dim=32, max_state_dim=64))
    adapter = Adapter.of(config, metadata, "agibot")
    known, state, _, output = _robot("agibot", 24)
    assert adapter.state(state).shape == (1, 1, 64)
    assert adapter.chunk(output, state).shape == (24, 22)
    assert adapter.step_period == pytest.approx(1 / 30)
    assert sum(adapter.dims.values()) == 22
    assert adapter.relative == known.relative
    with pytest.raises(CheckpointError, match="no statistics for 'xdof'; it has oxe_droid"):
        Adapter.of(config, metadata, "xdof")
