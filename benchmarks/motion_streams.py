"""Chunk streams as a model would send them, with the intention behind them known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wam_ros.contract.data import ActionChunk, FloatArray
from wam_ros.contract.model import Contract


@dataclass(frozen=True)
class Stream:
    """Chunks in order of arrival and what they mean.

    ``truth(t)`` gives the intention ``(M, D)`` at times ``(M,)``.
    """

    name: str
    arrivals: list[tuple[float, ActionChunk]]
    truth_times: FloatArray
    truth_values: FloatArray
    duration: float

    def truth(self, t: FloatArray) -> FloatArray:
        """Intention at ``t`` ``(M,)``, held outside the stream."""
        return np.stack(
            [np.interp(t, self.truth_times, column) for column in self.truth_values.T], axis=1
        )


@dataclass(frozen=True)
class Noise:
    """How a model's chunks differ from the intention (rad).

    ``row`` is white per row, ``bias`` constant per chunk, ``growth`` the error at the end of a
    chunk (it grows with the square of the row), ``surprise`` the size of what the intention does
    that a chunk could not foresee when it was computed.
    """

    row: float = 0.004
    bias: float = 0.01
    growth: float = 0.03
    surprise: float = 0.05


class Intention:
    """Smooth random motion of every joint around home; foreseen and unforeseen parts."""

    def __init__(self, contract: Contract, seed: int, surprise: float) -> None:
        rng = np.random.default_rng(seed)
        names = contract.control_names
        self._arm = np.array([contract.group_of(n).role != "gripper" for n in names])
        limits = [contract.joints[n].limits for n in names]
        self.home = np.array([contract.joints[n].home for n in names])
        room = np.minimum(
            self.home - [x.lower for x in limits], np.array([x.upper for x in limits]) - self.home
        )
        speed = np.array([x.velocity for x in limits])
        self._waves = self._draw(rng, (0.05, 0.5), 4)
        self._late = self._draw(rng, (0.1, 0.6), 4)
        # A tenth of the top speed on average (r.m.s.), as in table-top work.
        scale = 0.12 * speed / np.sqrt(np.sum((self._waves[0] * self._waves[1]) ** 2, axis=0) / 2)
        top = np.sum(np.abs(self._waves[0]), axis=0)
        self._scale = np.where(self._arm, np.minimum(scale, 0.5 * np.maximum(room, 0) / top), 0.0)
        late = np.sqrt(np.sum(self._late[0] ** 2, axis=0) / 2)
        self._surprise = np.where(self._arm, np.minimum(surprise / late, 0.2 * room / top), 0.0)

    def _draw(
        self, rng: np.random.Generator, band: tuple[float, float], count: int
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        shape = (count, len(self.home))
        omega = 2 * np.pi * np.exp(rng.uniform(np.log(band[0]), np.log(band[1]), shape))
        return rng.normal(0, 1, shape) / omega, omega, rng.uniform(0, 2 * np.pi, shape)

    @staticmethod
    def _wave(w: tuple[FloatArray, FloatArray, FloatArray], t: FloatArray) -> FloatArray:
        a, omega, phase = w
        at = omega * t[:, None, None] + phase
        return np.asarray(np.sum(a * (np.sin(at) - np.sin(phase)), axis=1))

    def foreseen(self, t: FloatArray) -> FloatArray:
        """The part that a chunk knows ahead, ``(M, D)``."""
        ease = np.clip(t / 1.5, 0, 1)[:, None] ** 2
        return self.home + self._scale * ease * self._wave(self._waves, t)

    def unforeseen(self, t: FloatArray) -> FloatArray:
        """The part that a chunk knows only up to its observation, ``(M, D)``."""
        ease = np.clip(t / 1.5, 0, 1)[:, None] ** 2
        return self._surprise * ease * self._wave(self._late, t)


def synthetic(
    contract: Contract,
    cadence: str,
    latency: float,
    seed: int,
    seconds: float,
    noise: Noise | None = None,
    horizon: int | None = None,
    period: float = 1.0 / 7.0,
) -> Stream:
    """A stream in one of the three cadences; one call at a time, each taking about ``latency`` s.

    A call takes between 0.85 and 1.1 times ``latency``. The policy's own rules hold: ``async``
    calls 1.1 latencies before the rows run out and gives way to ``sync`` when latency exceeds half
    a chunk; ``sliding`` needs latency + period within the chunk, else it gives way to ``async``.
    In ``sync`` the intention's clock is the executed row: it stands still while the model thinks.
    """
    noise, asked = noise or Noise(), cadence
    rows, step = horizon or contract.rates.horizon, contract.rates.step_period
    rng = np.random.default_rng([seed, round(1000 * latency), len(cadence)])
    mind = Intention(contract, seed, noise.surprise)
    arm = np.array([contract.group_of(n).role != "gripper" for n in contract.control_names])
    ahead = np.arange(rows) * step
    span = float(ahead[-1])
    if cadence == "sliding" and 1.1 * latency + max(period, 1.1 * latency) > span:
        cadence = "async"
    if cadence == "async" and 1.1 * latency > 0.5 * span:
        cadence = "sync"
    observed, clock = 0.0, 0.0
    arrivals: list[tuple[float, ActionChunk]] = []
    times, values = [0.0], [mind.foreseen(np.zeros(1))[0]]
    while observed + latency < seconds:
        seen = np.array([clock])
        error = rng.normal(0, noise.row, (rows, len(arm))) + rng.normal(0, noise.bias, len(arm))
        error += rng.normal(0, noise.growth, len(arm)) * ((ahead / span) ** 2)[:, None]
        wanted = mind.foreseen(clock + ahead) + mind.unforeseen(seen) + np.where(arm, error, 0.0)
        full = np.zeros((rows, len(contract.action_names)))
        columns = [contract.action_names.index(n) for n in contract.control_names]
        full[:, columns] = wanted
        took = latency * rng.uniform(0.85, 1.1)
        arrival = observed + took
        arrivals.append(
            (
                arrival,
                ActionChunk(
                    observed,
                    step,
                    full,
                    contract.action_names,
                    contract.action_kinds,
                    sequence=len(arrivals) + 1,
                    cadence=cadence,
                ),
            )
        )
        if cadence == "sync":
            fine = np.arange(0.0, span, 0.01)
            times += [arrival, *(arrival + fine[1:]), arrival + span]
            path = mind.foreseen(clock + np.append(fine, span)) + mind.unforeseen(
                clock + np.append(fine, span)
            )
            values += list(path)
            observed, clock = arrival + span, clock + span
        else:
            gap = period if cadence == "sliding" else span - 1.1 * latency
            observed = clock = observed + max(gap, took)
    name = f"{asked} {latency} s" + (f" ({cadence})" if cadence != asked else "")
    if cadence != "sync":
        t = np.arange(0.0, seconds, 0.01)
        return Stream(name, arrivals, t, mind.foreseen(t) + mind.unforeseen(t), seconds)
    return Stream(name, arrivals, np.array(times), np.array(values), times[-1])


def recorded(contract: Contract, file: Path) -> Stream:
    """Chunks recorded from a running graph (`record_chunks.py`).

    What the policy meant is not known beyond its chunks; the newest row due stands for it.
    """
    with np.load(file) as data:
        names = tuple(str(n) for n in data["names"])
        kinds = dict(zip(contract.action_names, contract.action_kinds, strict=True))
        step = float(data["step_period"])
        arrivals = [
            (
                float(arrival),
                ActionChunk(
                    float(t0),
                    step,
                    rows.astype(np.float64),
                    names,
                    tuple(kinds[n] for n in names),
                    sequence=k + 1,
                    cadence=str(cadence),
                ),
            )
            for k, (arrival, t0, rows, cadence) in enumerate(
                zip(data["arrival"], data["t0"], data["actions"], data["cadence"], strict=True)
            )
        ]
    columns = [names.index(n) for n in contract.control_names]
    home = np.array([contract.joints[n].home for n in contract.control_names])
    end = arrivals[-1][0] + arrivals[-1][1].horizon * step
    t = np.arange(0.0, end, 0.005)
    truth = np.tile(home, (len(t), 1))
    for arrival, chunk in arrivals:
        start = arrival if chunk.cadence == "sync" else chunk.t0
        due = start + np.arange(chunk.horizon) * step
        newer = t >= arrival
        for d, column in enumerate(columns):
            truth[newer, d] = np.interp(t[newer], due, chunk.actions[:, column])
    return Stream(f"recorded {file.stem}", arrivals, t, truth, end)


def example_19(contract: Contract, scenario: str, seed: int) -> Stream:
    """The three scenarios of ros2_control_demos' example 19 smoothness check, in our numbers.

    A mock policy streams positions only, 20 rows at 20 Hz, of a sine on two joints: one chunk, four
    chunks one after the other, or a new chunk every 200 ms over the last one. No latency, no noise.
    """
    rate, count = 20.0, 20
    starts = {
        "single": [0.0],
        "sequential": [k * (count - 1) / rate for k in range(4)],
        "overlapping": [0.2 * k for k in range(20)],
    }[scenario]
    names = contract.control_names
    home = np.array([contract.joints[n].home for n in names])
    size = np.zeros(len(names))
    size[:2] = 0.2, 0.15
    phase = np.random.default_rng(seed).uniform(0, 1.0)
    columns = [contract.action_names.index(n) for n in names]

    def motion(t: FloatArray) -> FloatArray:
        ease = np.clip(t / 1.0, 0, 1)[:, None] ** 3
        return home + size * ease * np.sin(2 * np.pi * 0.5 * t + phase)[:, None]

    arrivals = []
    for k, start in enumerate(starts):
        full = np.zeros((count, len(contract.action_names)))
        full[:, columns] = motion(start + np.arange(count) / rate)
        arrivals.append(
            (
                start,
                ActionChunk(
                    start,
                    1.0 / rate,
                    full,
                    contract.action_names,
                    contract.action_kinds,
                    sequence=k + 1,
                    cadence="async",
                ),
            )
        )
    end = starts[-1] + (count - 1) / rate
    t = np.arange(0.0, end, 0.005)
    return Stream(f"example 19 {scenario}", arrivals, t, motion(t), end + 0.5)
