"""What the executor does when readings, chunks, clock or operator are not as they should be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from execution_bench import (
    DT,
    G1,
    HOME,
    UPPER,
    N,
    armed,
    assert_inside,
    bounds,
    chunk,
    drive,
)

from wam_ros.execution import Executor, Mode, execute, plan


def test_estop_latches_until_reset() -> None:
    core = armed()
    core.estop("pressed")
    assert core.tick(DT) is None
    assert "latched" in core.arm(0.0)
    assert core.submit(chunk(0.0, np.tile(HOME, (24, 1))), 0.0) != ""
    core.reset()
    assert core.arm(0.0) == ""


def test_deadman_stops_then_disarms() -> None:
    rows = HOME + np.linspace(0, 0.4, 24)[:, None] * np.eye(N)[0]
    core = armed()
    run = drive(0.4, [(0.0, chunk(0.0, rows))], core)
    core.stop_and_disarm("no heartbeat")
    rest = execute(core, [], 0.4 + DT * np.arange(300))
    assert core.mode is Mode.DISARMED and core.reason == "no heartbeat"
    assert_inside(replace(run, commands=np.vstack([run.commands, rest.commands])), G1, DT)


def test_a_gentle_stop_before_disarming_takes_no_chunk() -> None:
    rows = HOME + np.linspace(0, 0.4, 24)[:, None] * np.eye(N)[0]
    core = armed()
    run = drive(0.4, [(0.0, chunk(0.0, rows))], core)
    core.stop_and_disarm("deactivated", gently=True)
    late = [(0.42, chunk(0.41, rows, 2)), (0.6, chunk(0.59, rows, 3))]
    rest = execute(core, late, 0.4 + DT * np.arange(600))
    assert core.mode is Mode.DISARMED and core.reason == "deactivated"
    assert "about to be disarmed" in rest.refusals[0]
    joined = replace(run, commands=np.vstack([run.commands, rest.commands]))
    assert_inside(joined, G1, DT)
    third = np.abs(np.diff(joined.commands, n=3, axis=0)).max(axis=0) / DT**3
    assert np.all(third <= 0.51 * bounds(G1)[4])


def test_following_error_gives_way_then_disarms() -> None:
    """A blocked joint: the reference does not run away, and is taken back before disarming."""
    rows = HOME + np.linspace(0, 0.6, 48)[:, None] * np.eye(N)[4]
    stuck = HOME[4] + 0.1

    def blocked(_: float, reference: np.ndarray) -> np.ndarray:
        measured = reference.copy()
        measured[4] = min(measured[4], stuck)
        return measured

    core = armed()
    run = execute(core, [(0.0, chunk(0.0, rows))], DT * np.arange(1500), blocked)
    assert core.mode is Mode.DISARMED and "left_arm_joint5" in core.reason
    assert run.commands[:, 4].max() < stuck + 0.25 + 0.02
    assert run.commands[-1, 4] == pytest.approx(stuck, abs=0.02)
    assert_inside(run, G1, DT)


@pytest.mark.parametrize(("lag", "hurried"), [(0.0, True), (0.6 * 0.25, False)])
def test_an_arm_that_lags_is_not_hurried_on(lag: float, hurried: bool) -> None:
    """The loop loses every third cycle; the time is caught up only if the arm follows."""
    rows = HOME + np.linspace(0, 0.5, 48)[:, None] * np.eye(N)[4]
    core = armed()
    paces = []

    def behind(_: float, reference: np.ndarray) -> np.ndarray:
        paces.append(core.pace)
        return reference - lag * np.eye(N)[4]

    execute(core, [(0.0, chunk(0.0, rows))], 1.5 * DT * np.arange(300), behind)
    assert core.mode is not Mode.DISARMED
    assert (max(paces) > 1.3) == hurried
    assert hurried or max(paces) <= 1.06


def test_a_reading_that_jumps_disarms_at_once_and_is_not_followed() -> None:
    core = armed()
    drive(0.2, [(0.0, chunk(0.0, np.tile(HOME, (24, 1))))], core)
    core.set_measured({"left_arm_joint2": HOME[1] - 1.5}, 0.2)
    assert core.tick(0.2) is None
    assert core.mode is Mode.DISARMED and "left_arm_joint2 jumped" in core.reason


def test_arming_waits_for_steady_readings_and_refuses_absurd_ones() -> None:
    core = armed()
    core.set_measured({"left_arm_joint2": HOME[1] - 1.5}, 0.1)
    core.tick(0.1)
    core.set_measured(dict(zip(core.names, HOME)), 0.2)  # and back: a jump again
    assert "must be steady" in core.arm(0.3)
    for now in (0.55, 0.75):
        core.set_measured(dict(zip(core.names, HOME)), now)
    assert core.arm(0.75) == ""
    absurd = Executor(G1)
    absurd.set_measured(
        dict(zip(core.names, HOME)) | {"left_arm_joint2": UPPER[1] + 1.0}, 0.0, True
    )
    assert "far outside" in absurd.arm(0.0)


def test_frozen_readings_end_in_a_following_error() -> None:
    rows = HOME + np.linspace(0, 0.8, 48)[:, None] * np.eye(N)[0]
    core = armed()
    execute(core, [(0.0, chunk(0.0, rows))], DT * np.arange(1500), lambda *_: HOME)
    assert core.mode is Mode.DISARMED and "following error" in core.reason


def test_stale_joint_states_stop_the_arm_and_fresh_ones_let_it_go_on() -> None:
    core = armed()
    rows = HOME + np.linspace(0, 0.5, 24)[:, None] * np.eye(N)[0]
    core.submit(chunk(0.0, rows), 0.0)
    for k in range(400):
        core.tick(k * DT)
    assert core.mode is Mode.HOLDING and "stale" in core.reason
    assert "stale" in core.submit(chunk(0.7, rows, 2), 0.8)
    core.set_measured(dict(zip(core.names, map(float, core.reference))), 0.8)
    assert core.submit(chunk(0.75, np.tile(core.reference, (24, 1)), 3), 0.8) == ""


def test_a_loop_that_stood_still_holds_instead_of_leaping() -> None:
    rows = HOME + 0.1 * (1 - np.cos(2 * np.arange(48)[:, None] / 30)) * np.eye(N)[0]
    core = armed()
    first = execute(core, [(0.0, chunk(0.0, rows))], DT * np.arange(250))
    second = execute(core, [], 1.1 + DT * np.arange(300))
    assert core.mode is Mode.HOLDING and "stood still" in core.reason
    joined = replace(first, commands=np.vstack([first.commands, second.commands]))
    assert_inside(joined, G1, DT)


def test_after_a_clock_jump_older_stamps_are_taken_again() -> None:
    core = armed(100.0)
    core.submit(chunk(100.0, np.tile(HOME, (24, 1))), 100.0)
    core.tick(100.0)
    core.clock_jumped("ROS time jumped")
    core.set_measured(dict(zip(core.names, HOME)), 50.0)
    core.tick(50.0)
    assert core.submit(chunk(50.0, np.tile(HOME, (24, 1)), 2), 50.0) == ""


def test_hold_forgets_the_chunk() -> None:
    core = armed()
    core.submit(chunk(0.0, np.tile(HOME, (24, 1))), 0.0)
    core.hold("asked to")
    assert core.mode is Mode.STOPPING
    assert core.progress(0.1) == (0, 0.0, 0.0)


def test_a_chunk_that_cannot_be_fitted_is_refused_and_the_motion_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No sound rows are known that LAPACK gives up on, so it is told to."""
    rows = HOME + np.linspace(0, 0.3, 24)[:, None] * np.eye(N)[0]
    core, undisturbed = armed(), armed()
    solve, times = plan.dpbsv, DT * np.arange(300)
    first, second = (0.0, chunk(0.0, rows)), (0.1, chunk(0.1, rows, 2))

    def gives_up(*given, **options):
        unfit = core.counters.accepted == 1 and core.counters.rejected == 0
        return (None, None, 7) if unfit else solve(*given, **options)

    monkeypatch.setattr(plan, "dpbsv", gives_up)
    run = execute(core, [first, second], times)
    assert run.refusals == ["", "the rows cannot be fitted by a path"]
    assert core.counters.rejected == 1
    alone = execute(undisturbed, [first], times)
    np.testing.assert_array_equal(run.commands, alone.commands)
    assert core.submit(chunk(times[-1], rows, 3), times[-1]) == ""


def test_malformed_chunks_never_move_the_arm() -> None:
    """100,000 spoilt chunks, seeded: all are refused with a reason, none raises."""
    rng = np.random.default_rng(4)
    core = armed()
    sound = chunk(0.0, np.tile(HOME, (24, 1)))
    odd = [np.nan, np.inf, -np.inf, 1e300, -1e300]
    for k in range(100_000):
        now = 0.001 * k
        actions, kind = sound.actions.copy(), rng.integers(9)
        change: dict = {"t0": now, "sequence": k, "actions": actions}
        if kind == 0:
            actions[rng.integers(24), rng.integers(N)] = odd[rng.integers(len(odd))]
        elif kind == 1:
            change["actions"] = actions[: rng.integers(2)]
        elif kind == 2:
            change["names"] = sound.names[: rng.integers(N)]
        elif kind == 3:
            change["step_period"] = [*odd, 0.0, -0.1, 5.0][rng.integers(8)]
        elif kind == 4:
            change["t0"] = odd[rng.integers(len(odd))]
        elif kind == 5:
            change["kinds"] = sound.kinds[: rng.integers(N)]
        elif kind == 6:
            change["actions"] = actions.ravel()
        elif kind == 7:
            actions[:, rng.integers(14)] += rng.choice([-8.0, 8.0])
        else:
            change["t0"] = now + rng.choice([-1, 1]) * rng.uniform(6, 1e6)
        if k % 100 == 0:
            core.set_measured(dict(zip(core.names, core.reference)), now)
            command = core.tick(now)
            np.testing.assert_array_equal(command, HOME)
        assert core.submit(replace(sound, **change), now) != ""
    assert core.mode is Mode.HOLDING and core.counters.rejected == 100_000
