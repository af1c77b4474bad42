"""Random chunk streams and an armed core, for the tests of the executor."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from wam_ros.contract import load_contract
from wam_ros.contract.data import ActionChunk
from wam_ros.contract.model import Contract
from wam_ros.execution import Executor, Settings, execute
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
    core.set_measured(dict(zip(core.names, map(float, measured))), now, resting=True)
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
).filter(lambda s: s["latency"] < 0.8 * s["rows"] * s["step"])
"""Streams whose chunks come before their rows are over; others move nothing."""
SETTINGS = st.builds(
    Settings,
    smoothing=st.sampled_from([0.02, 0.1, 0.3]),
    fade=st.sampled_from([0.0, 0.3]),
    ensemble=st.sampled_from([0.0, 0.6]),
    savgol=st.booleans(),
    slowest=st.sampled_from([1.0, 0.4]),
    reanchor_cap=st.sampled_from([10.0, 10.0, 0.6]),
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
