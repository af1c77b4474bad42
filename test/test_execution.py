"""The execution core keeps its promises on random chunk streams."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wam_ros.contract import load_contract
from wam_ros.contract.data import ActionChunk
from wam_ros.contract.model import Contract
from wam_ros.execution import Executor, Mode, Settings, execute
from wam_ros.execution.offline import Run

G1 = load_contract("agibot_g1")
DROID = load_contract("franka_droid")
YAM = load_contract("yam")
DT = 1.0 / G1.rates.control
N = len(G1.control_names)


def examples(usual: int) -> settings:
    """That many; with ``--hypothesis-profile=many`` what the profile says."""
    many = settings.default.max_examples if settings.get_current_profile_name() == "many" else 0
    return settings(max_examples=max(usual, many), deadline=None)


def at_rate(contract: Contract, rate: float) -> Contract:
    return replace(contract, rates=replace(contract.rates, control=rate))


def bounds(contract: Contract) -> tuple[np.ndarray, ...]:
    limits = [contract.joints[n].limits for n in contract.control_names]
    keys = ("lower", "upper", "velocity", "acceleration", "jerk")
    return tuple(np.array([getattr(x, k) for x in limits]) for k in keys)


def home(contract: Contract) -> np.ndarray:
    return np.array([contract.joints[n].home for n in contract.control_names])


HOME = home(G1)
LOWER, UPPER, *_ = bounds(G1)


def chunk(
    t0: float,
    rows: np.ndarray,
    sequence: int = 1,
    cadence: str = "async",
    contract: Contract = G1,
    step: float = 1 / 30,
    flags: int = 0,
) -> ActionChunk:
    full = np.zeros((len(rows), len(contract.action_names)))
    columns = [contract.action_names.index(n) for n in contract.control_names]
    full[:, columns] = rows
    return ActionChunk(
        t0,
        step,
        full,
        contract.action_names,
        contract.action_kinds,
        sequence=sequence,
        cadence=cadence,
        context_flags=flags,
    )


def armed(
    now: float = 0.0, contract: Contract = G1, given: Settings | None = None, start=None
) -> Executor:
    core = Executor(contract, given)
    measured = home(contract) if start is None else start
    core.set_measured(dict(zip(core.names, map(float, measured))), now)
    assert core.arm(now) == ""
    return core


def drive(seconds: float, chunks: list[tuple[float, ActionChunk]], core: Executor) -> Run:
    period = 1.0 / core.contract.rates.control
    return execute(core, chunks, period * np.arange(round(seconds / period)))


def random_stream(
    seed: int,
    contract: Contract,
    rows: int,
    step: float,
    cadence: str,
    period: float,
    latency: float,
    noise: float,
    trouble: float,
    seconds: float,
) -> list[tuple[float, ActionChunk]]:
    """Waves with noise, bias and steps; dropped, doubled, late and reordered with ``trouble``."""
    rng = np.random.default_rng(seed)
    start = home(contract)
    n = len(start)
    omega, phase = rng.uniform(0.5, 6, n), rng.uniform(0, 2 * np.pi, n)
    size = rng.uniform(0.0, 0.6, n)
    stream: list[tuple[float, ActionChunk]] = []
    for sequence, t0 in enumerate(np.arange(0.0, seconds, period), start=1):
        t = t0 + np.arange(rows) * step
        wanted = start + size * (np.sin(omega * t[:, None] + phase) - np.sin(phase))
        wanted += rng.normal(0, noise, wanted.shape) + rng.normal(0, noise, n)
        if rng.random() < trouble:
            wanted[rng.integers(rows) :] += rng.normal(0, 0.3, n)  # a step
        made = chunk(t0, wanted, sequence, cadence, contract, step)
        arrival = t0 + latency * rng.uniform(0.5, 1.5)
        if rng.random() < trouble:
            arrival += rng.uniform(0, 2 * period)  # late, perhaps after its successor
        if rng.random() > 0.5 * trouble:
            stream.append((arrival, made))
        if rng.random() < trouble:
            stream.append((arrival + rng.uniform(0, period), made))
    return stream


STREAMS = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 1_000_000),
        "contract": st.sampled_from([G1, DROID]),
        "rows": st.sampled_from([24, 48]),
        "step": st.sampled_from([1 / 15, 1 / 30]),
        "cadence": st.sampled_from(["sync", "async", "sliding"]),
        "period": st.sampled_from([0.08, 0.143, 0.4, 1.1, 3.0]),
        "latency": st.sampled_from([0.02, 0.15, 0.6, 1.1]),
        "noise": st.sampled_from([0.0, 0.01, 0.05]),
        "trouble": st.sampled_from([0.0, 0.3]),
    }
)
SETTINGS = st.builds(
    Settings,
    smoothing=st.sampled_from([0.02, 0.1, 0.3]),
    fade=st.sampled_from([0.0, 0.3]),
    ensemble=st.sampled_from([0.0, 0.6]),
    savgol=st.booleans(),
    slowest=st.sampled_from([1.0, 0.4]),
    reanchor_cap=st.sampled_from([0.6, 10.0]),
)


def assert_inside(run: Run, contract: Contract, period: float) -> None:
    """Positions and their first three differences, as a driver would see them."""
    lower, upper, v, a, j = bounds(contract)
    p = run.commands
    assert np.all(p >= lower) and np.all(p <= upper)
    for order, most in enumerate((v, a, j), start=1):
        found = np.abs(np.diff(p, n=order, axis=0)) / period**order
        # Rounding of positions, 1e-16 of a few rad, grows with the order of the difference.
        assert np.all(found <= most + 4e-15 / period**order)


@examples(60)
@given(stream=STREAMS, given=SETTINGS, rate=st.sampled_from([500.0, 1000.0]))
def test_commands_stay_inside_every_limit(stream, given: Settings, rate: float) -> None:
    contract = at_rate(stream.pop("contract"), rate)
    core = armed(contract=contract, given=given)
    run = drive(1.6, random_stream(contract=contract, seconds=1.3, **stream), core)
    assert "gate" not in core.reason, core.reason
    assert len(run.commands) == round(1.6 * rate)
    assert_inside(run, contract, 1.0 / rate)


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
    core.set_measured(dict(zip(core.names, HOME)), 0.75)
    assert core.arm(0.75) == ""
    absurd = Executor(G1)
    absurd.set_measured(dict(zip(core.names, HOME)) | {"left_arm_joint2": UPPER[1] + 1.0}, 0.0)
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


def test_gripper_ignores_small_changes_and_follows_large_ones() -> None:
    grip = G1.control_names.index("left_gripper")
    for size, moved in ((0.015, 0.0), (0.8, 0.8)):
        rows = np.tile(HOME, (48, 1))
        rows[:, grip] = size
        run = drive(1.0, [(0.0, chunk(0.0, rows))], armed())
        assert run.commands[-1, grip] == pytest.approx(HOME[grip] + moved, abs=1e-3)


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


@pytest.mark.slow
def test_properties_with_many_examples() -> None:
    """The properties above with the examples of the profile, or of WAM_EXAMPLES, each."""
    names = "every_limit or any_tick or time_promised or same_output or inward_only"
    command = [sys.executable, "-m", "pytest", "-q", "--hypothesis-profile=many", __file__]
    subprocess.run([*command, "-k", names], check=True)
