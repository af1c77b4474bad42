"""At the edges of what is accepted: dense rows, joints outside, idle ones, ends of motions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from execution_bench import DROID, DT, G1, HOME, N, armed, bounds, chunk, drive, examples, home
from hypothesis import given
from hypothesis import strategies as st
from test_outlook import COUNT, EVERY, STEP, windows

from wam_ros.contract.data import ActionChunk
from wam_ros.contract.model import Contract, Limits
from wam_ros.execution import Executor, Mode, Settings, execute
from wam_ros.execution.outputs import channels, undriven

GRIPPER = G1.control_names.index("left_gripper")


@pytest.mark.parametrize("smoothing", [0.1, 0.3, 2.0])
@pytest.mark.parametrize("step", [0.001, 0.005, 0.01, 1 / 30])
def test_dense_rows_draw_nobody_towards_zero(smoothing: float, step: float) -> None:
    core = armed(contract=DROID, given=Settings(smoothing=smoothing))
    count = min(1000, round(1.0 / step))
    stay = drive(
        1.0, [(0.0, chunk(0.0, np.tile(home(DROID), (count, 1)), contract=DROID, step=step))], core
    )
    assert stay.refusals == [""]
    np.testing.assert_allclose(
        stay.commands, home(DROID)[None].repeat(len(stay.commands), 0), atol=1e-9
    )


@pytest.mark.parametrize("step", [0.002, 0.005])
def test_dense_rows_are_followed_as_sparse_ones_are(step: float) -> None:
    def way(period: float) -> np.ndarray:
        t = period * np.arange(round(1.5 / period))
        rows = home(DROID) + 0.2 * (1 - np.cos(2.0 * t))[:, None] * np.eye(len(home(DROID)))[0]
        sent = chunk(0.0, rows, contract=DROID, step=period)
        return drive(1.2, [(0.0, sent)], armed(contract=DROID)).commands[:, 0]

    assert np.abs(way(step) - way(1 / 60)).max() < 2e-3


def alone(limits: Limits) -> Contract:
    """A robot of one joint, the G1's first, with other limits."""
    name = G1.control_names[0]
    group = replace(
        G1.group_of(name), joints=(replace(G1.joints[name], limits=limits, home=limits.upper),)
    )
    key = next(k for k in G1.action if name in k.joints)
    return replace(G1, groups=(group,), action=(replace(key, joints=(name,), start=0),))


@examples(20)
@given(
    seed=st.integers(0, 100_000),
    limits=st.sampled_from(
        [
            Limits(0, 0.55, 0.1, 0.3, 10, 0.1),
            Limits(-0.35, 0.5236, 1.0, 4.0, 200.0, 0.3),
            Limits(-1.48, 1.48, 2.0, 8.0, 400.0, 0.25),
        ]
    ),
)
def test_a_joint_outside_never_turns_outward_whatever_it_is_told(seed: int, limits: Limits) -> None:
    contract = alone(limits)
    rng = np.random.default_rng(seed)
    by = rng.uniform(0.001, 0.3 * limits.following_error)
    core = armed(contract=contract, start=np.array([limits.upper + by]))
    period, due, sent = rng.choice([0.04, 0.08, 0.143]), 0.02, []
    for k in range(400):
        now = k * DT
        core.set_measured(dict(zip(core.names, map(float, core.reference))), now)
        if now >= due:
            due += period
            t0 = now - 0.05
            drift = rng.normal(0, 0.3) * by + rng.normal() * by * (np.arange(24) / 30 - 0.05)
            rows = core.reference + drift[:, None] if drift.ndim else core.reference + drift
            core.submit(chunk(t0, rows, k + 1, contract=contract), now)
        command = core.tick(now)
        assert command is not None, core.reason
        sent.append(command[0])
    outside = np.array(sent[:-1]) > limits.upper + 1e-6  # on the edge itself it is inside
    assert np.diff(sent)[outside].max(initial=0.0) < 1e-8


def test_chunks_are_looked_at_again_whenever_it_was_disarmed() -> None:
    for ticks in range(1, 21):
        core = armed()
        drive(ticks * DT, [], core)
        core.disarm("by request")
        assert core.light_tick


@pytest.mark.parametrize("joint", ["waist_lift", "waist_pitch", "left_arm_joint1"])
def test_an_arm_that_is_blocked_is_given_way_to_until_it_rests(joint: str) -> None:
    j = G1.control_names.index(joint)
    core, limits = armed(), G1.joints[joint].limits
    sent, sequence = [HOME], 0
    for k in range(4000):
        now = k * DT
        if k % 150 == 0 and core.mode in (Mode.HOLDING, Mode.TRACKING):
            sequence += 1
            rows = np.tile(HOME, (48, 1))
            rows[:, j] = core.reference[j] + 0.95 * limits.velocity * np.arange(48) / 30
            core.submit(chunk(now + 1e-6, np.minimum(rows, bounds(G1)[1]), sequence), now)
        core.set_measured(dict(zip(core.names, map(float, HOME))), now)
        command = core.tick(now)
        if core.mode is Mode.DISARMED:
            break
        assert command is not None
        sent.append(command)
    assert core.mode is Mode.DISARMED and "following error" in core.reason
    speed = (sent[-1] - sent[-2])[j] / DT
    assert abs(speed) < 0.01 * limits.velocity
    assert abs(sent[-1][j] - HOME[j]) < 0.01 * limits.following_error


@pytest.mark.parametrize("speed", [0.2, 0.5, 1.0])
def test_windows_do_not_stop_dead_where_rows_end(speed: float) -> None:
    rows = home(DROID) + speed * DROID.rates.step_period * np.arange(24)[:, None] * np.eye(8)[0]
    sent = chunk(0.0, rows, contract=DROID, step=DROID.rates.step_period)
    _, _, _, most, _ = bounds(DROID)
    for state, window in windows(armed(contract=DROID), [(0.0, sent)], 2.2):
        velocity = np.array([state[1], *(s[1] for s in window)])
        assert np.all(np.abs(np.diff(velocity, axis=0)) <= 1.01 * most * STEP)


def test_the_window_of_a_gentle_stop_stays_in_the_range() -> None:
    j = DROID.control_names.index("fr3_joint6")
    _, upper, *_ = bounds(DROID)
    start = home(DROID)
    start[j] = upper[j] - 1.0
    rows = np.tile(start, (24, 1))
    rows[:, j] = np.minimum(
        start[j] + 1.8 * DROID.rates.step_period * np.arange(24), upper[j] + 0.3
    )
    core = armed(contract=DROID, start=start)
    sent = chunk(0.0, rows, contract=DROID, step=DROID.rates.step_period)
    drive(0.56, [(0.0, sent)], core)
    core.hold("operator")
    assert core.mode is Mode.STOPPING and core.state[1][j] > 1.0
    found = windows(core, [], 1.0)
    assert len(found) > 500 // EVERY - 2
    for _, window in found:
        assert len(window) == COUNT and max(s[0][j] for s in window) <= upper[j]


def test_the_window_shows_how_a_blocked_arm_is_given_way_to() -> None:
    core = armed(contract=DROID)
    rows = home(DROID) + 0.5 * DROID.rates.step_period * np.arange(24)[:, None] * np.eye(8)[0]
    core.submit(chunk(0.0, rows, contract=DROID, step=DROID.rates.step_period), 0.0)
    now = 0.0
    while core.reason[:9] != "following":
        now += DT
        core.set_measured(dict(zip(core.names, map(float, home(DROID)))), now)
        assert core.tick(now) is not None
    expected = core.ahead(STEP, COUNT)
    for k in range(round(STEP * COUNT / DT)):
        core.set_measured(dict(zip(core.names, map(float, home(DROID)))), now + DT * (k + 1))
        core.tick(now + DT * (k + 1))
    assert core.reference[0] == pytest.approx(expected[-1][0][0], abs=0.01)


def test_joints_that_no_output_drives_stay_and_trip_nothing() -> None:
    core = armed()
    left = undriven(channels(G1, core, sim=False), core)
    assert set(left) == {n for n in core.names if n.startswith(("head", "waist"))}
    assert undriven(channels(G1, core, sim=True), core) == []
    core.leave_alone(left)
    idle = np.array([n in left for n in core.names])
    rows = HOME + np.linspace(0, 0.3, 48)[:, None] * np.ones(N)
    rows[:, ~idle] = HOME[~idle] + np.linspace(0, 0.3, 48)[:, None] * np.eye(N)[~idle][:, ~idle][0]
    assert core.submit(chunk(0.0, rows), 0.0) == ""
    for k in range(1000):
        moved = HOME + 0.15 * k * DT * idle  # somebody else moves them
        values = np.where(idle, moved, core.reference)
        core.set_measured(dict(zip(core.names, map(float, values))), k * DT)
        command = core.tick(k * DT)
        assert command is not None, core.reason
    assert core.mode in (Mode.TRACKING, Mode.HOLDING, Mode.STOPPING)
    np.testing.assert_array_equal(command[idle], HOME[idle])
    assert np.abs(command - HOME)[~idle].max() > 0.1


@pytest.mark.parametrize("given", [Settings(ensemble=0.9), Settings(savgol=True)])
def test_a_grip_is_neither_mixed_nor_smoothed(given: Settings) -> None:
    opened = np.tile(HOME, (24, 1))
    grip = opened.copy()
    grip[6:, GRIPPER] = 1.0
    stream = [(0.0, chunk(0.0, opened, 1)), (0.1, chunk(0.1, grip, 2))]
    usual, tuned = (drive(1.0, stream, armed(given=g)) for g in (Settings(), given))
    np.testing.assert_allclose(tuned.commands[:, GRIPPER], usual.commands[:, GRIPPER], atol=1e-12)
    assert usual.commands[-1, GRIPPER] == pytest.approx(1.0, abs=0.01)


def test_an_estop_goes_on_braking_when_the_clock_jumps() -> None:
    core = armed()
    rows = HOME + np.linspace(0, 0.4, 24)[:, None] * np.eye(N)[0]
    drive(0.4, [(0.0, chunk(0.0, rows))], core)
    core.estop("pressed")
    core.clock_jumped("ROS time jumped")
    speeds = []
    for k in range(200):  # a joint is heard of later than the others
        now = 100.0 + k * DT
        known = core.names if k > 50 else core.names[1:]
        values = dict(zip(core.names, map(float, core.reference), strict=True))
        core.set_measured({n: values[n] for n in known}, now)
        if core.tick(now) is None:
            break
        speeds.append(abs(core.state[1][0]))
    assert speeds[0] > 0.1 and speeds[-1] < 1e-6 and len(speeds) > 20


@pytest.mark.parametrize("cadence", ["sync", "async"])
def test_a_chunk_of_two_rows_is_taken(cadence: str) -> None:
    rows = np.tile(HOME, (2, 1)) + 0.001
    core: Executor = armed()
    assert core.submit(chunk(0.0, rows, cadence=cadence), 0.0) == ""
    execute(core, [], DT * np.arange(1, 500))
    assert core.mode is Mode.HOLDING and core.at_rest


def test_a_base_is_not_told_more_than_its_speed_limit() -> None:
    from test_outputs import with_base

    contract = with_base()
    name = next(n for k in contract.action if k.kind == "velocity" for n in k.joints)
    assert isinstance(name, str)
    core = Executor(contract)
    most = min(contract.joints[name].limits.velocity, contract.joints[name].limits.upper)
    core.set_measured({n: contract.joints[n].home for n in core.names}, 0.0, resting=True)
    assert core.arm(0.0) == ""
    rows = np.array([contract.joints[n].home for n in contract.action_names])[None].repeat(48, 0)
    rows[:, [k == "velocity" for k in contract.action_kinds]] = 9.0
    sent = ActionChunk(
        0.0, 1 / 30, rows, contract.action_names, contract.action_kinds, 1, cadence="async"
    )
    execute(core, [(0.0, sent)], DT * np.arange(600))
    assert core.base.command[core.base.names.index(name)] <= most + 1e-12
