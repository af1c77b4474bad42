"""Episodes summed up per policy, cadence, task and split, and policies compared in pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from wam_ros.contract.data import FloatArray
from wam_ros.evaluation.record import EpisodeRecord
from wam_ros.evaluation.statistics import bootstrap, mcnemar, wilson


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval; all NaN where there was nothing to estimate from."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Summary:
    """Episodes of one policy, cadence, task and split.

    ``success`` is a share with its Wilson interval; the others have bootstrap intervals over
    episodes. ``time_to_success`` is the median (s) of the episodes that succeeded,
    ``latency_p50`` and ``latency_p95`` (s) are over all chunks, the rest are means per episode:
    progress, path (m), rms jerk (rad/s3), holds, seconds held, and instructions done.
    ``errors`` counts the episodes that were broken off.
    """

    policy: str
    cadence: str
    task: str
    split: str
    episodes: int
    successes: int
    success: Interval
    progress: Interval
    time_to_success: Interval
    path_length: Interval
    rms_jerk: Interval
    latency_p50: Interval
    latency_p95: Interval
    holds: Interval
    hold_seconds: Interval
    done: Interval
    errors: int


@dataclass(frozen=True)
class Comparison:
    """Two policies on the same seeds: how often only one of them succeeded, and exact McNemar."""

    first: str
    second: str
    cadence: str
    task: str
    split: str
    pairs: int
    both: int
    only_first: int
    only_second: int
    neither: int
    p_value: float


Key = tuple[str, str, str, str]


def _groups(records: Iterable[EpisodeRecord]) -> dict[Key, dict[int, EpisodeRecord]]:
    groups: dict[Key, dict[int, EpisodeRecord]] = {}
    for r in records:
        group = groups.setdefault((r.policy, r.cadence, r.task, r.split), {})
        if r.seed in group:
            raise ValueError(
                f"seed {r.seed} occurs twice for {r.policy}, {r.cadence}, {r.task}, {r.split}; "
                f"an episode may count only once"
            )
        group[r.seed] = r
    return groups


def _estimate(
    groups: Sequence[Sequence[float]], statistic: Callable[[FloatArray], FloatArray]
) -> Interval:
    values = [v for g in groups for v in g]
    value = float(statistic(np.asarray(values, dtype=float))) if values else float("nan")
    return Interval(value, *bootstrap(groups, statistic))


def _mean(values: FloatArray) -> FloatArray:
    return np.asarray(np.mean(values, axis=-1))


def _quantile(q: float) -> Callable[[FloatArray], FloatArray]:
    return lambda values: np.asarray(np.percentile(values, q, axis=-1))


def summarise(records: Iterable[EpisodeRecord]) -> list[Summary]:
    """Sum up, in the order in which policies, cadences, tasks and splits first occur.

    Raises
    ------
    ValueError
        A seed occurs twice in one group.
    """
    found = []
    for (policy, cadence, task, split), group in _groups(records).items():
        episodes = list(group.values())
        wins = sum(r.success for r in episodes)
        latencies = [r.chunk_latencies for r in episodes]
        times = [[r.time_to_success] for r in episodes if r.time_to_success is not None]
        found.append(
            Summary(
                policy=policy,
                cadence=cadence,
                task=task,
                split=split,
                episodes=len(episodes),
                successes=wins,
                success=Interval(wins / len(episodes), *wilson(wins, len(episodes))),
                progress=_estimate([[r.progress] for r in episodes], _mean),
                time_to_success=_estimate(times, _quantile(50.0)),
                path_length=_estimate([[r.path_length] for r in episodes], _mean),
                rms_jerk=_estimate([[r.rms_jerk] for r in episodes], _mean),
                latency_p50=_estimate(latencies, _quantile(50.0)),
                latency_p95=_estimate(latencies, _quantile(95.0)),
                holds=_estimate([[r.holds] for r in episodes], _mean),
                hold_seconds=_estimate([[r.hold_seconds] for r in episodes], _mean),
                done=_estimate([[r.done] for r in episodes], _mean),
                errors=sum(bool(r.error) for r in episodes),
            )
        )
    return found


def compare(records: Iterable[EpisodeRecord], first: str, second: str) -> list[Comparison]:
    """Compare two policies wherever both were run on the same seeds.

    Raises
    ------
    ValueError
        They share no seed in any cadence, task and split.
    """
    groups = _groups(records)
    found = []
    for (policy, cadence, task, split), one in groups.items():
        other = groups.get((second, cadence, task, split))
        if policy != first or other is None:
            continue
        shared = sorted(set(one) & set(other))
        if not shared:
            continue
        outcomes = [(one[s].success, other[s].success) for s in shared]
        both, only_first, only_second, neither = (
            outcomes.count(pair)
            for pair in ((True, True), (True, False), (False, True), (False, False))
        )
        counts = (both, only_first, only_second, neither)
        p_value = mcnemar(only_first, only_second)
        found.append(Comparison(first, second, cadence, task, split, len(shared), *counts, p_value))
    if not found:
        raise ValueError(f"{first} and {second} were not run on the same seeds; nothing to compare")
    return found
