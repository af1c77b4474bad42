"""The execution core keeps its promises on random chunk streams."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wam_ros.contract import load_contract
from wam_ros.contract.data import ActionChunk
from wam_ros.execution import Executor, Mode

G1 = load_contract("agibot_g1")
DT = 1.0 / G1.rates.control
HOME = np.array([G1.joints[n].home for n in G1.control_names])
N = len(HOME)
LIMITS = [G1.joints[n].limits for n in G1.control_names]
LOWER, UPPER, V, A, J = (
    np.array([getattr(x, k) for x in LIMITS])
    for k in ("lower", "upper", "velocity", "acceleration", "jerk")
)


def chunk(t0: float, rows: np.ndarray, sequence: int = 1, cadence: str = "async") -> ActionChunk:
    full = np.zeros((len(rows), len(G1.action_names)))
    full[:, :N] = rows
    return ActionChunk(
        t0, 1 / 30, full, G1.action_names, G1.action_kinds, sequence=sequence, cadence=cadence
    )


def armed(now: float = 0.0) -> Executor:
    core = Executor(G1)
    core.set_measured(dict(zip(core.names, HOME)), now)
    assert core.arm(now) == ""
    return core


@dataclass
class Run:
    """What a simulated session sent, tick by tick."""

    commands: np.ndarray
    core: Executor
    refusals: list[str]


def drive(seconds: float, chunks: list[tuple[float, ActionChunk]], core: Executor) -> Run:
    """Run a loop whose measurements follow the reference perfectly."""
    todo = sorted(chunks, key=lambda x: x[0])
    commands, refusals = [], []
    for k in range(int(seconds / DT)):
        t = k * DT
        core.set_measured(dict(zip(core.names, core.reference)), t)
        while todo and todo[0][0] <= t:
            refusals.append(core.submit(todo.pop(0)[1], t))
        command = core.tick(t)
        if command is not None:
            commands.append(command.copy())
    return Run(np.array(commands), core, refusals)


def random_stream(seed: int, period: float, latency: float, noise: float, seconds: float):
    rng = np.random.default_rng(seed)
    frequency = rng.uniform(0.1, 0.8, N)
    phase = rng.uniform(0, 2 * np.pi, N)
    size = rng.uniform(0.0, 0.6, N)
    stream = []
    for sequence, t0 in enumerate(np.arange(0.0, seconds, period), start=1):
        times = t0 + np.arange(24) / 30
        wave = size * (np.sin(2 * np.pi * frequency * times[:, None] + phase) - np.sin(phase))
        rows = HOME + wave + rng.normal(0, noise, (24, N)) + rng.normal(0, noise, N)
        stream.append((t0 + latency * rng.uniform(0.5, 1.5), chunk(t0, rows, sequence)))
    return stream


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    period=st.sampled_from([0.08, 0.143, 0.4, 0.9]),
    latency=st.sampled_from([0.02, 0.15, 0.5, 1.0]),
    noise=st.sampled_from([0.0, 0.01, 0.05]),
)
def test_commands_stay_inside_every_limit(seed, period, latency, noise) -> None:
    run = drive(2.0, random_stream(seed, period, latency, noise, 1.6), armed())
    p = run.commands
    v = np.diff(p, axis=0) / DT
    a = np.diff(v, axis=0) / DT
    j = np.diff(a, axis=0) / DT
    assert run.core.mode is not Mode.ESTOPPED, run.core.reason
    assert np.all(p >= LOWER - 1e-9) and np.all(p <= UPPER + 1e-9)
    assert np.all(np.abs(v) <= V * (1 + 1e-6) + 1e-9)
    # Differences of sampled positions carry rounding noise of about 1e-16 / DT^3.
    assert np.all(np.abs(a) <= A * (1 + 1e-4) + 1e-6)
    assert np.all(np.abs(j) <= J * (1 + 1e-3) + 1e-1)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000), ticks=st.integers(50, 600))
def test_a_stop_inside_the_limits_exists_at_any_tick(seed: int, ticks: int) -> None:
    core = armed()
    drive(ticks * DT, random_stream(seed, 0.2, 0.1, 0.03, 1.2), core)
    core.estop("test")
    positions = [core.reference.copy()]
    for k in range(2000):
        t = (ticks + k) * DT
        core.set_measured(dict(zip(core.names, core.reference)), t)
        command = core.tick(t)
        if command is None:
            break
        positions.append(command.copy())
    assert core.at_rest
    p = np.array(positions)
    assert np.all(p >= LOWER - 1e-9) and np.all(p <= UPPER + 1e-9)


def test_targets_on_the_edge_of_the_range_are_not_overshot() -> None:
    rows = np.tile(UPPER + 1.0, (24, 1))
    core = armed()
    core.settings = type(core.settings)(reanchor_cap=100.0, smoothing=0.03)
    stream = [(0.1 * k, chunk(0.1 * k, rows, k + 1)) for k in range(30)]
    run = drive(3.5, stream, core)
    assert np.all(run.commands <= UPPER + 1e-9)


def test_same_input_same_output() -> None:
    first = drive(1.0, random_stream(3, 0.143, 0.1, 0.02, 0.9), armed())
    second = drive(1.0, random_stream(3, 0.143, 0.1, 0.02, 0.9), armed())
    np.testing.assert_array_equal(first.commands, second.commands)


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
    core = Executor(G1)
    measured = HOME + 0.05
    core.set_measured(dict(zip(core.names, measured)), 0.0)
    assert core.arm(0.0) == ""
    np.testing.assert_allclose(core.tick(DT), measured)


def test_starved_executor_comes_to_rest_on_the_last_row() -> None:
    goal = HOME.copy()
    goal[0] += 0.2
    rows = HOME + np.linspace(0, 1, 24)[:, None] * (goal - HOME)
    run = drive(2.0, [(0.0, chunk(0.0, rows))], armed())
    assert run.core.mode is Mode.HOLDING
    assert "ran out" in run.core.reason
    np.testing.assert_allclose(run.commands[-1], goal, atol=2e-3)


def test_late_chunk_uses_only_its_future_rows() -> None:
    rows = np.tile(HOME, (24, 1))
    rows[:12, 0] += 0.5  # the first half is over when the chunk arrives
    run = drive(1.5, [(0.45, chunk(0.0, rows))], armed())
    assert np.max(np.abs(run.commands[:, 0] - HOME[0])) < 0.01


def test_sync_chunk_starts_on_arrival() -> None:
    rows = HOME + np.linspace(0, 0.2, 24)[:, None] * np.eye(N)[0]
    run = drive(2.5, [(0.7, chunk(0.0, rows, cadence="sync"))], armed())
    assert run.commands[-1, 0] == pytest.approx(HOME[0] + 0.2, abs=2e-3)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda c: c.actions.__setitem__((3, 2), np.nan), "left_arm_joint3 is not a number"),
        (lambda c: c.actions.__setitem__((slice(None), 0), 3.0), "away from the reference"),
        (lambda c: object.__setattr__(c, "names", ("x", *c.names[1:])), "no column for left_arm"),
        (lambda c: object.__setattr__(c, "step_period", 0.0), "step period"),
        (lambda c: object.__setattr__(c, "t0", -2.0), "not newer"),
        (lambda c: object.__setattr__(c, "t0", -50.0), "s old"),
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


def test_following_error_disarms_and_names_the_joint() -> None:
    core = armed()
    blocked = HOME.copy()
    blocked[4] += 0.3
    core.set_measured(dict(zip(core.names, blocked)), 0.01)
    core.tick(0.01)
    assert core.mode is Mode.DISARMED
    assert "left_arm_joint5" in core.reason
    assert core.tick(0.02) is None


def test_stale_joint_states_stop_the_arm() -> None:
    core = armed()
    rows = HOME + np.linspace(0, 0.5, 24)[:, None] * np.eye(N)[0]
    core.submit(chunk(0.0, rows), 0.0)
    for k in range(400):
        core.tick(k * DT)
    assert core.mode in (Mode.STOPPING, Mode.HOLDING)
    assert "stale" in core.reason
    assert core.at_rest


def test_hold_forgets_the_chunk() -> None:
    core = armed()
    core.submit(chunk(0.0, np.tile(HOME, (24, 1))), 0.0)
    core.hold("asked to")
    assert core.mode is Mode.STOPPING
    assert core.progress(0.1) == (0, 0.0, 0.0)


def test_gripper_ignores_small_changes() -> None:
    rows = np.tile(HOME, (24, 1))
    grip = G1.control_names.index("left_gripper")
    rows[:, grip] = 0.015
    run = drive(0.8, [(0.0, chunk(0.0, rows))], armed())
    assert np.all(np.abs(run.commands[:, grip] - HOME[grip]) < 1e-5)
