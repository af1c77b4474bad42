"""What people do to an armed executor at the wrong moment: hold, e-stop, disarm, arm again."""

from __future__ import annotations

import numpy as np
import pytest
from execution_bench import (
    DT,
    G1,
    HOME,
    STREAMS,
    YAM,
    N,
    armed,
    bounds,
    chunk,
    drive,
    examples,
    home,
    random_stream,
)
from hypothesis import given
from hypothesis import strategies as st
from test_outputs import with_base

from wam_ros.execution import Executor, Mode, Settings, execute
from wam_ros.execution.clearance import Space
from wam_ros.policy.turn import FIRST
from wam_ros.resources import share
from wam_ros.sim.urdf import expand

REACH = HOME + np.linspace(0, 0.4, 24)[:, None] * np.eye(N)[0]
DRIVING = 0.3  # m/s


def moving(seconds: float = 0.4) -> Executor:
    core = armed()
    drive(seconds, [(0.0, chunk(0.0, REACH))], core)
    assert np.abs(core.state[1]).max() > 0.1
    return core


def still(core: Executor, since: float, until: float) -> None:
    """Readings that do not change, without ticks."""
    for t in np.arange(since, until, 0.02):
        core.set_measured(dict(zip(core.names, map(float, core.reference), strict=True)), float(t))


def test_an_estop_after_disarming_in_motion_sends_nothing() -> None:
    core = moving()
    core.disarm("by request")
    core.estop("pressed, later")
    still(core, 0.4, 0.6)
    assert all(core.tick(float(t)) is None for t in 0.6 + DT * np.arange(200))
    assert core.reset() == ""


def test_an_estop_whose_readings_went_stale_does_not_go_on_later() -> None:
    core = moving()
    core.estop("pressed")
    assert core.tick(0.402) is not None
    assert core.tick(1.5) is None  # nothing heard of the joints meanwhile
    still(core, 1.5, 1.52)
    assert all(core.tick(float(t)) is None for t in 1.52 + DT * np.arange(100))


def test_a_reset_waits_for_the_end_of_the_stop() -> None:
    core = moving()
    core.estop("pressed")
    core.tick(0.402)
    assert "still coming to rest" in core.reset()
    assert core.mode is Mode.ESTOPPED
    execute(core, [], 0.404 + DT * np.arange(600))
    assert core.reset() == ""
    still(core, 1.6, 1.9)
    assert core.arm(1.9) == ""


def test_nobody_arms_an_arm_that_moves() -> None:
    core = Executor(G1)
    for i, t in enumerate(np.arange(0.0, 0.5, 0.01)):
        moved = HOME + 0.01 * i * np.eye(N)[1]
        core.set_measured(dict(zip(core.names, map(float, moved), strict=True)), float(t))
    assert "is still moving" in core.arm(0.5)
    still(core, 0.5, 0.75)
    assert core.arm(0.75) == ""


@pytest.mark.parametrize("speed, fit", [(0.0, True), (0.1, False)])
def test_an_arm_that_creeps_is_not_armed_and_one_that_only_trembles_is(speed, fit) -> None:
    rng, core = np.random.default_rng(2), Executor(G1)
    for t in np.arange(0.0, 0.4, 0.01):
        seen = HOME + rng.normal(0.0, 1e-3, N) + speed * t * np.eye(N)[3]
        core.set_measured(dict(zip(core.names, map(float, seen), strict=True)), float(t))
    assert (core.arm(0.39) == "") == fit


def test_readings_that_have_only_begun_or_begun_again_prove_no_rest() -> None:
    core = Executor(G1)
    core.set_measured(dict(zip(core.names, map(float, HOME), strict=True)), 0.0)
    still(core, 0.02, 0.1)
    assert "have not shown the arm at rest" in core.arm(0.1)
    still(core, 0.1, 0.25)
    assert core.arm(0.25) == ""
    core.disarm("by request")
    still(core, 0.25, 0.5)
    still(core, 1.0, 1.1)  # silent for half a second: who knows what it did
    assert "have not shown the arm at rest" in core.arm(1.1)
    still(core, 1.1, 1.3)
    assert core.arm(1.3) == ""


def test_no_source_hides_behind_another() -> None:
    """Two slow drivers that take turns; one arm moves, and is read now and then."""
    for period in (0.1, 0.2, 0.29):
        core, t = Executor(G1), 0.0
        for _ in range(20):
            t += 0.05 * period
            core.set_measured({n: float(x) for n, x in zip(core.names[1:], HOME[1:])}, t)
            assert core.arm(t) != ""
            t += 0.95 * period
            core.set_measured({core.names[0]: HOME[0] + t}, t)
            assert core.arm(t) != ""


@pytest.mark.parametrize("by", [100.0, -30.0])
def test_after_a_clock_jump_every_joint_must_be_heard_and_at_rest_on_the_new_clock(by) -> None:
    seen = {n: float(x) for n, x in zip(Executor(G1).names, HOME)}
    first = next(iter(seen))
    others = {n: x for n, x in seen.items() if n != first}
    core = Executor(G1)
    core.set_measured(seen, 0.0)
    for t in np.arange(0.02, 60.0, 0.02):
        core.set_measured(others, float(t))  # the first joint's driver has died
    assert "stale" in core.arm(60.0)
    core.clock_jumped("ROS time jumped")
    for t in 60.0 + by + np.arange(0.0, 0.28, 0.02):
        core.set_measured(others, float(t))
        assert f"clock jumped for {first}" in core.arm(float(t))
    for t in 60.28 + by + np.arange(0.0, 0.19, 0.02):
        core.set_measured(seen, float(t))
        assert "have not shown" in core.arm(float(t))
    for t in 60.48 + by + np.arange(0.0, 0.02, 0.01):
        core.set_measured(seen, float(t))
    assert core.arm(60.49 + by) == ""


def test_joints_that_nothing_here_drives_may_move_while_the_arm_is_armed() -> None:
    core = Executor(G1)
    core.leave_alone(["head_yaw"])
    for t in np.arange(0.0, 0.4, 0.02):
        seen = {n: float(x) for n, x in zip(core.names, HOME)} | {"head_yaw": 0.2 * t}
        core.set_measured(seen, float(t))
    assert core.arm(0.38) == ""


def test_a_driver_that_is_behind_its_commands_is_waited_for() -> None:
    """It shows the same for as long as it has commands to work through, then moves on."""
    core = moving()
    then = core.reference
    core.disarm("by request")
    now = core._last_tick
    for t in now + np.arange(0.0, 0.19, 0.01):
        core.set_measured(dict(zip(core.names, map(float, then), strict=True)), float(t))
        assert "have not shown" in core.arm(float(t))


def test_a_held_arm_stays_held_whatever_chunks_come() -> None:
    core = moving()
    core.pause("hold service called")
    rest = 0.4 + DT * np.arange(1, 500)
    execute(core, [], rest)
    assert core.mode is Mode.HOLDING and core.at_rest
    now, rows = float(rest[-1]), np.tile(core.reference, (24, 1))
    for sequence, flags in ((2, 0), (3, FIRST)):  # even the first one of a policy that began anew
        late = chunk(now - 0.1 + 0.01 * sequence, rows, sequence, flags=flags)
        assert "until an instruction is given" in core.submit(late, now)
        assert core.mode is Mode.HOLDING
    core.resume()
    assert core.submit(chunk(now, rows, 4), now + DT) == ""


@pytest.mark.parametrize("how", ["resume", "arm"])
def test_a_held_arm_can_be_told_to_go_on(how: str) -> None:
    core = armed()
    core.pause("hold service called")
    assert core.mode is Mode.HOLDING and core.reason == "hold service called"
    assert "held (hold service called)" in core.submit(chunk(0.1, REACH), 0.1)
    if how == "arm":
        assert core.arm(0.1) == ""
    else:
        core.resume()
    assert core.submit(chunk(0.1, REACH), 0.1) == ""


def test_letting_go_of_the_deadman_does_not_end_giving_way() -> None:
    """A blocked arm that is disarmed under tension springs when it is freed."""
    core = moving(0.3)
    blocked = dict(zip(core.names, map(float, core.reference), strict=True))
    t, sent = 0.3, None
    while core.mode is not Mode.DISARMED and t < 6.0:
        t += DT
        core.set_measured(blocked, t)
        command = core.tick(t)
        sent = command if command is not None else sent
        if "following error" in core.reason:
            core.stop_and_disarm("no heartbeat")
    assert core.mode is Mode.DISARMED and "following error" in core.reason
    assert sent is not None
    np.testing.assert_allclose(sent, list(blocked.values()), atol=0.01)


def driving() -> Executor:
    contract = with_base()
    core = armed(contract=contract)
    made = chunk(0.0, np.tile(HOME, (24, 1)), contract=contract)
    made.actions[:, made.names.index("base_vx")] = DRIVING
    drive(0.7, [(0.0, made)], core)
    assert core.base.command[0] == pytest.approx(DRIVING)
    return core


@pytest.mark.parametrize("how", ["estop", "stop_and_disarm", "pause"])
def test_a_base_is_braked_before_the_executor_falls_silent(how: str) -> None:
    core = driving()
    getattr(core, how)("test")
    speeds = []
    for t in 0.7 + DT * np.arange(1, 1500):
        core.set_measured(dict(zip(core.names, map(float, core.reference), strict=True)), float(t))
        if core.tick(float(t)) is None:
            break
        speeds.append(core.base.command[0])
    step = core.contract.joints["base_vx"].limits.acceleration * DT
    assert np.all(np.diff(speeds) >= -step - 1e-12)
    assert speeds[-1] == 0.0 and core.base.at_rest


def test_a_base_does_not_drive_off_when_it_is_armed_again() -> None:
    core = driving()
    core.disarm("by request")
    assert core.base.at_rest
    still(core, 0.7, 1.0)
    assert core.arm(1.0) == ""
    assert core.tick(1.002) is not None
    assert core.base.at_rest


def test_arms_may_not_creep_together_either() -> None:
    space = Space(YAM, expand(share() / YAM.urdf))
    start, inward = home(YAM), np.zeros(len(YAM.control_names))
    for name, sign in (("left_joint1", -1.0), ("right_joint1", 1.0)):
        inward[YAM.control_names.index(name)] = sign
    angles = np.arange(0.0, 1.5, 1e-3)
    gaps = np.array([space.distances((start + x * inward)[None]).min() for x in angles])
    clearance = YAM.safety.clearance
    assert gaps[0] > clearance > gaps.min(), "they meet on this way"
    begin = angles[int(np.argmax(gaps < clearance + 0.005))]
    space.restart(start + begin * inward)
    for i in range(20_000):
        here = start + (begin + 2e-5 * i) * inward
        gap = space.distances(here[None]).min()
        reason = space.check(here, here)
        if reason:
            break
        assert gap >= clearance
    assert "close to" in reason


def test_the_slowest_pace_keeps_its_promise_of_rest() -> None:
    for slowest in (0.0, 0.1, 1.5):
        with pytest.raises(ValueError, match="slowest"):
            Settings(slowest=slowest)
    core = armed(given=Settings(slowest=0.2))
    run = drive(1.0, [(0.0, chunk(0.0, REACH))], core)
    assert len(run.commands) == 500
    execute(core, [], 1.0 + DT * np.arange(1, round((0.8 / 0.2 + 2.0 - 1.0) / DT)))
    assert core.mode is Mode.HOLDING and core.at_rest


EVENTS = st.lists(
    st.tuples(
        st.floats(0.02, 2.4),
        st.sampled_from(["pause", "hold", "resume", "estop", "disarm", "gently", "reset", "arm"]),
    ),
    max_size=8,
)


@examples(40)
@given(
    stream=STREAMS,
    events=EVENTS,
    lag=st.sampled_from([0.0, 0.02, 0.05]),
    missing=st.sampled_from([0.0, 0.05]),
)
def test_whatever_people_do_each_stretch_of_commands_is_inside(
    stream, events, lag: float, missing: float
) -> None:
    """An arm that lags, cycles that are lost, and somebody at the services.

    From the first command after silence to the next silence, commands are inside every limit; the
    first is the measured state; and an arm that is not armed is sent nothing.
    """
    contract = stream.pop("contract")
    core = armed(contract=contract)
    rng = np.random.default_rng(stream["seed"])
    chunks = random_stream(contract=contract, seconds=2.2, **stream)
    todo = sorted(chunks, key=lambda x: x[0])
    events = sorted(events)
    lower, upper, *most = bounds(contract)
    measured, stretch = home(contract), []
    for tick in range(1, round(2.5 / DT)):
        now = tick * DT
        if rng.random() < missing:
            continue
        while events and events[0][0] <= now:
            what = events.pop(0)[1]
            if what == "arm":
                core.arm(now)
            elif what == "gently":
                core.stop_and_disarm("asked", gently=True)
            elif what in ("reset", "resume"):
                getattr(core, what)()
            else:
                getattr(core, what)("asked")
        while todo and todo[0][0] <= now:
            core.submit(todo.pop(0)[1], now)
        core.set_measured(dict(zip(core.names, map(float, measured), strict=True)), now)
        silent = core.mode is Mode.DISARMED
        command = core.tick(now)
        assert "gate" not in core.reason, core.reason
        if command is None:
            stretch = []
            continue
        assert not silent
        if not stretch:
            np.testing.assert_allclose(command, measured, atol=1e-9)
            stretch = 3 * [measured.copy()]
        stretch = [*stretch[-3:], command]
        assert np.all(command >= np.minimum(lower, stretch[0]) - 1e-9)
        assert np.all(command <= np.maximum(upper, stretch[0]) + 1e-9)
        for order, bound in enumerate(most, start=1):
            found = np.abs(np.diff(stretch, n=order, axis=0)[-1]) / DT**order
            assert np.all(found <= bound + 4e-15 / DT**order)
        share = 1.0 if lag == 0.0 else DT / (lag + DT)
        measured = measured + share * (command - measured)
