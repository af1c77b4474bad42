"""The execution core keeps its promises on random chunk streams."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from execution_bench import (
    DT,
    G1,
    HOME,
    SETTINGS,
    STREAMS,
    UPPER,
    N,
    armed,
    assert_inside,
    at_rate,
    chunk,
    drive,
    examples,
    random_stream,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from wam_ros.execution import Mode, Settings, execute


@examples(60)
@given(stream=STREAMS, given=SETTINGS, rate=st.sampled_from([500.0, 1000.0]))
def test_commands_stay_inside_every_limit(stream, given: Settings, rate: float) -> None:
    contract = at_rate(stream.pop("contract"), rate)
    core = armed(contract=contract, given=given)
    run = drive(1.6, random_stream(contract=contract, seconds=1.3, **stream), core)
    assert "gate" not in core.reason, core.reason
    assert len(run.commands) == round(1.6 * rate)
    assert_inside(run, contract, 1.0 / rate)


def test_the_streams_drawn_here_move_the_arm() -> None:
    """Limits that hold because every chunk is refused would prove nothing."""
    moved, accepted = [], []

    @settings(max_examples=15, deadline=None, derandomize=True)
    @given(stream=STREAMS, given=SETTINGS)
    def draw(stream, given: Settings) -> None:
        contract = stream.pop("contract")
        core = armed(contract=contract, given=given)
        run = drive(1.6, random_stream(contract=contract, seconds=1.3, **stream), core)
        moved.append(float(np.ptp(run.commands, axis=0).max()))
        accepted.append(core.counters.accepted)

    draw()
    assert np.mean(np.array(moved) > 0.05) > 0.6, moved
    assert np.mean(np.array(accepted) > 1) > 0.4, accepted


@examples(30)
@given(
    stream=STREAMS,
    given=SETTINGS,
    seconds=st.floats(0.04, 1.4),
    rate=st.sampled_from([500.0, 1000.0]),
)
def test_a_stop_inside_the_limits_exists_at_any_tick(stream, given, seconds, rate) -> None:
    contract, dt = at_rate(stream.pop("contract"), rate), 1.0 / rate
    core = armed(contract=contract, given=given)
    ticks = round(seconds * rate)
    before = drive(ticks * dt, random_stream(contract=contract, seconds=1.4, **stream), core)
    core.estop("test")
    after = execute(core, [], dt * np.arange(ticks, ticks + round(6 * rate)))
    assert core.at_rest
    joined = replace(before, commands=np.vstack([before.commands, after.commands]))
    assert_inside(joined, contract, dt)


def test_a_joint_that_stops_on_its_limit_does_not_pass_it_by_rounding() -> None:
    core = armed(given=Settings(smoothing=0.02, reanchor_cap=10.0))
    stream = random_stream(
        3159, G1, rows=24, step=1 / 30, cadence="sync", period=0.4, latency=0.15,
        noise=0.0, trouble=0.3, seconds=1.4,
    )  # fmt: skip
    drive(0.562, stream, core)
    core.estop("test")
    after = execute(core, [], 0.002 * np.arange(281, 800))
    assert after.commands[:, core.names.index("right_gripper")].min() == 0.0


@examples(4)
@given(stream=STREAMS)
def test_without_chunks_the_arm_rests_within_the_time_promised(stream) -> None:
    contract = stream.pop("contract")
    core = armed(contract=contract)
    arrivals = random_stream(contract=contract, seconds=0.9, **stream)
    last = max((t for t, _ in arrivals if t < 1.5), default=0.0)
    horizon = stream["rows"] * stream["step"]
    arrivals = [(t, c) for t, c in arrivals if t < 1.5]
    drive(last + horizon + 2.0, arrivals, core)
    assert core.mode is Mode.HOLDING and core.at_rest


@examples(3)
@given(stream=STREAMS, given=SETTINGS)
def test_same_input_same_output(stream, given: Settings) -> None:
    contract = stream.pop("contract")
    arrivals = random_stream(contract=contract, seconds=0.8, **stream)
    runs = [drive(0.9, arrivals, armed(contract=contract, given=given)) for _ in range(2)]
    np.testing.assert_array_equal(runs[0].commands, runs[1].commands)
    assert runs[0].refusals == runs[1].refusals


@examples(3)
@given(seed=st.integers(0, 10_000))
def test_a_joint_outside_its_range_moves_inward_only(seed: int) -> None:
    rng = np.random.default_rng(seed)
    start = np.where(rng.random(N) < 0.5, UPPER + 0.05, HOME)
    core = armed(given=Settings(reanchor_cap=10.0), start=start)
    run = drive(1.5, [(0.01, chunk(0.0, np.tile(HOME, (48, 1))))], core)
    moved = np.diff(run.commands, axis=0)
    assert np.all(moved[run.commands[:-1] > UPPER] <= 1e-12)
    assert np.all(run.commands[-1] <= UPPER + 1e-9)
    assert "gate" not in core.reason


def test_targets_on_the_edge_of_the_range_are_not_overshot() -> None:
    rows = np.tile(UPPER + 1.0, (24, 1))
    core = armed(given=Settings(reanchor_cap=100.0, smoothing=0.03))
    stream = [(0.1 * k, chunk(0.1 * k, rows, k + 1)) for k in range(30)]
    run = drive(3.5, stream, core)
    assert np.all(run.commands <= UPPER)
    assert np.all(np.diff(run.commands[:, 0]) >= -1e-4)  # no backing off to gain speed
    assert run.commands[-1, 0] > 2.5


def test_skipped_ticks_do_not_shake_the_motion() -> None:
    rows = HOME + 0.2 * (1 - np.cos(2 * np.arange(48)[:, None] / 30)) * np.eye(N)[0]
    clock = [DT * k for k in range(800) if k % 50 not in (7, 8, 9)]
    run = execute(armed(), [(0.0, chunk(0.0, rows))], clock)
    assert_inside(run, G1, DT)
    third = np.diff(run.commands[:, 0], n=3) / DT**3
    assert np.abs(third).max() < 60.0


@pytest.mark.slow
def test_properties_with_many_examples() -> None:
    """The properties above with the examples of the profile, or of WAM_EXAMPLES, each."""
    names = "every_limit or any_tick or time_promised or same_output or inward_only"
    command = [sys.executable, "-m", "pytest", "-q", "--hypothesis-profile=many", __file__]
    subprocess.run([*command, "-k", names], check=True)
