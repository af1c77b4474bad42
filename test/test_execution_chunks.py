"""Which rows of which chunk the executor follows, and how."""

from __future__ import annotations

import numpy as np
import pytest
from execution_bench import (
    DT,
    G1,
    HOME,
    UPPER,
    YAM,
    N,
    armed,
    assert_inside,
    chunk,
    drive,
    home,
)

from wam_ros.execution import Executor, Mode, Settings, execute


def test_nothing_is_sent_before_arming() -> None:
    core = Executor(G1)
    core.set_measured(dict(zip(core.names, HOME)), 0.0)
    assert core.submit(chunk(0.0, np.tile(HOME, (24, 1))), 0.0) != ""
    assert core.tick(0.01) is None


def test_arming_needs_every_joint_and_names_the_missing_one() -> None:
    core = Executor(G1)
    core.set_measured(dict(zip(core.names[1:], HOME[1:])), 0.0)
    assert "left_arm_joint1" in core.arm(0.0)


def test_arming_takes_the_measured_state() -> None:
    measured = HOME + 0.05
    np.testing.assert_allclose(armed(start=measured).tick(DT), measured)


def test_starved_executor_comes_to_rest_on_the_last_row() -> None:
    goal = HOME + 0.2 * np.eye(N)[0]
    rows = HOME + np.linspace(0, 1, 24)[:, None] * (goal - HOME)
    run = drive(2.0, [(0.0, chunk(0.0, rows))], armed())
    assert run.modes[-1] is Mode.HOLDING
    np.testing.assert_allclose(run.commands[-1], goal, atol=2e-3)
    assert run.commands[:, 0].max() < goal[0] + 2e-3


def test_rows_on_the_edge_of_the_range_end_at_rest() -> None:
    rows = HOME + np.linspace(0, 0.3, 24)[:, None] * np.eye(N)[5]  # clipped at the upper limit
    core = armed()
    run = drive(3.0, [(0.15 * k, chunk(0.15 * k, rows, k + 1)) for k in range(4)], core)
    assert core.mode is Mode.HOLDING and core.at_rest
    assert run.commands[:, 5].max() <= UPPER[5]


def one_path(apart: float, latency: float, size: float, omega: float, seconds: float):
    """Chunks cut every ``apart`` seconds from one swing of a YAM joint, and the swing itself."""
    wanted = home(YAM)
    joint = YAM.control_names.index("left_joint2")

    def at(t: np.ndarray) -> np.ndarray:
        return wanted + size * (1 - np.cos(omega * t))[:, None] * np.eye(len(wanted))[joint]

    stream = [
        (t0 + latency, chunk(t0, at(t0 + np.arange(24) / 30), k, "async", YAM))
        for k, t0 in enumerate(np.arange(0.0, seconds, apart), start=1)
    ]
    return stream, lambda t: at(t)[:, joint], joint


@pytest.mark.parametrize("apart", [0.1, 0.27, 0.6])
@pytest.mark.parametrize("latency", [0.0, 0.1])
@pytest.mark.parametrize(("size", "omega"), [(0.3, 5.0), (0.4, 4.4), (0.7, 3.3), (1.0, 2.8)])
def test_chunks_of_one_path_close_to_the_limits_are_followed(apart, latency, size, omega) -> None:
    """7.5 to 7.8 of 8 rad/s2: replanned again and again, the joint must not fall behind."""
    stream, truth, joint = one_path(apart, latency, size, omega, 4.0)
    run = drive(4.0, stream, armed(contract=YAM))
    assert not any(run.refusals)
    if apart + latency < 0.6:  # else each chunk is braked for its end
        late = np.abs(run.commands[1500:, joint] - truth(run.times[1500:]))
        assert late.max() < 0.05


@pytest.mark.parametrize("lost", [0.1, 0.3])
def test_lost_cycles_do_not_pile_up(lost: float) -> None:
    """A busy machine loses cycles all the time: the motion stays with the clock all the same."""
    stream, truth, joint = one_path(0.27, 0.05, 0.5, 2.0, 8.0)
    clock = DT * np.arange(4000)
    clock = clock[np.random.default_rng(2).random(len(clock)) >= lost]
    run = execute(armed(contract=YAM), stream, clock)
    assert not any(run.refusals)
    assert np.abs(run.commands[:, joint] - truth(run.times))[len(clock) // 2 :].max() < 0.15


def test_a_loop_that_loses_half_its_cycles_holds_and_says_so() -> None:
    stream, _, _ = one_path(0.27, 0.05, 0.5, 2.0, 3.0)
    core, reasons = armed(contract=YAM), set()

    def robot(_: float, reference: np.ndarray) -> np.ndarray:
        reasons.add(core.reason)
        return reference

    execute(core, stream, 2 * DT * np.arange(750), robot)
    assert any("misses too many cycles" in r for r in reasons)
    assert not any("gate" in r for r in reasons)


def test_late_chunk_uses_only_its_future_rows() -> None:
    rows = np.tile(HOME, (24, 1))
    rows[:12, 0] += 0.5  # the first half is over when the chunk arrives
    core = armed()
    run = drive(1.5, [(0.45, chunk(0.0, rows))], core)
    assert np.max(np.abs(run.commands[:, 0] - HOME[0])) < 0.01
    assert core.counters.delay_rows == pytest.approx(13.5, abs=0.2)


def test_sync_chunk_starts_on_arrival() -> None:
    rows = HOME + np.linspace(0, 0.2, 24)[:, None] * np.eye(N)[0]
    run = drive(2.5, [(0.7, chunk(0.0, rows, cadence="sync"))], armed())
    assert run.commands[-1, 0] == pytest.approx(HOME[0] + 0.2, abs=2e-3)


def test_first_chunk_that_took_longer_than_its_rows_starts_on_arrival() -> None:
    rows = HOME + np.linspace(0, 0.2, 24)[:, None] * np.eye(N)[0]
    late = drive(2.0, [(1.0, chunk(0.0, rows))], armed())
    assert "in the past" in late.refusals[0]
    run = drive(3.0, [(1.0, chunk(0.0, rows, flags=4))], armed())
    assert run.commands[-1, 0] == pytest.approx(HOME[0] + 0.2, abs=2e-3)


def test_a_warm_up_chunk_into_a_motion_keeps_to_its_stamp() -> None:
    core = armed()
    still = np.tile(HOME, (24, 1))
    drive(0.5, [(0.1, chunk(0.0, still, 1)), (0.4, chunk(0.1, still, 2, flags=4))], core)
    assert core.counters.delay_rows == pytest.approx(9.0, abs=0.2)


def test_time_scaling_slows_a_starved_arm_and_keeps_count_of_rows() -> None:
    rows = HOME + np.linspace(0, 0.3, 24)[:, None] * np.eye(N)[0]
    plain, slowed = armed(), armed(given=Settings(slowest=0.3))
    first = [(0.0, chunk(0.0, rows))]
    fast, slow = drive(0.75, first, plain), drive(0.75, first, slowed)
    assert slowed.progress(0.75)[1] < plain.progress(0.75)[1] - 0.4
    assert slow.commands[-1, 0] < fast.commands[-1, 0] - 0.005
    assert_inside(slow, G1, DT)


def test_warm_up_does_not_count_as_latency() -> None:
    still = np.tile(HOME, (24, 1))
    core = armed()
    drive(0.5, [(0.4, chunk(0.0, still, 1, flags=4)), (0.45, chunk(0.4, still, 2))], core)
    assert core.counters.latency.percentiles(50)[0] == pytest.approx(0.05, abs=0.005)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda c: c.actions.__setitem__((3, 2), np.nan), "left_arm_joint3 is not a number"),
        (lambda c: c.actions.__setitem__((slice(None), 0), 3.0), "away from the reference"),
        (lambda c: object.__setattr__(c, "names", ("x", *c.names[1:])), "no column for left_arm"),
        (lambda c: object.__setattr__(c, "names", (c.names[1], *c.names[1:])), "no column"),
        (lambda c: object.__setattr__(c, "step_period", 0.0), "step period"),
        (lambda c: object.__setattr__(c, "t0", 0.0), "not newer"),
        (lambda c: object.__setattr__(c, "t0", -50.0), "s old"),
        (lambda c: object.__setattr__(c, "t0", np.nan), "not a number"),
        (lambda c: object.__setattr__(c, "kinds", ("velocity", *c.kinds[1:])), "as velocity"),
        (lambda c: object.__setattr__(c, "actions", c.actions[:1]), "has 1 rows"),
    ],
)
def test_bad_chunk_is_refused_and_the_last_one_kept(spoil, reason: str) -> None:
    core = armed()
    good = chunk(0.0, np.tile(HOME, (24, 1)), 1)
    assert core.submit(good, 0.0) == ""
    bad = chunk(0.1, np.tile(HOME, (24, 1)), 2)
    spoil(bad)
    assert reason in core.submit(bad, 0.1)
    assert core.mode is Mode.TRACKING
    assert core.progress(0.1)[0] == 1
    assert core.counters.rejected == 1


def test_gripper_ignores_small_changes_and_follows_large_ones() -> None:
    grip = G1.control_names.index("left_gripper")
    for size, moved in ((0.015, 0.0), (0.8, 0.8)):
        rows = np.tile(HOME, (48, 1))
        rows[:, grip] = size
        run = drive(1.0, [(0.0, chunk(0.0, rows))], armed())
        assert run.commands[-1, grip] == pytest.approx(HOME[grip] + moved, abs=1e-3)
