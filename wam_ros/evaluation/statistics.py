"""Intervals and tests, written out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from wam_ros.contract.data import FloatArray

Z = 1.959963984540054
"""Two-sided 95 % point of the normal distribution."""
RESAMPLES = 2000


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """95 % score interval of a share (Wilson 1927); (0, 1) when there were no trials.

    Unlike the normal approximation it stays inside 0..1 and is not empty at 0 or all successes.
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes in {trials} trials")
    if trials == 0:
        return 0.0, 1.0
    p, n = successes / trials, float(trials)
    scale = 1.0 + Z * Z / n
    centre = (p + Z * Z / (2.0 * n)) / scale
    half = Z * math.sqrt(p * (1.0 - p) / n + Z * Z / (4.0 * n * n)) / scale
    # At the ends the exact bound is 0 or 1; rounding must not say otherwise.
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == trials else min(1.0, centre + half)
    return low, high


def bootstrap(
    groups: Sequence[Sequence[float]],
    statistic: Callable[[FloatArray], FloatArray],
    seed: int = 0,
) -> tuple[float, float]:
    """95 % percentile interval of ``statistic`` over values that come in groups (Efron 1979).

    ``statistic`` reduces the last axis. Whole groups are drawn with replacement, because values of
    one episode are not independent. NaN twice when there is nothing to draw from.
    """
    parts = [np.asarray(g, dtype=float) for g in groups if len(g)]
    if not parts:
        return math.nan, math.nan
    picks = np.random.default_rng(seed).integers(len(parts), size=(RESAMPLES, len(parts)))
    if all(len(p) == len(parts[0]) for p in parts):
        drawn = statistic(np.stack(parts)[picks].reshape(RESAMPLES, -1))
    else:
        drawn = np.array([statistic(np.concatenate([parts[i] for i in row])) for row in picks])
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(high)


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided p value of McNemar's test from the two discordant counts.

    Under the null hypothesis each discordant pair favours either side with probability 1/2.
    """
    if min(only_first, only_second) < 0:
        raise ValueError(f"counts {only_first} and {only_second} must not be negative")
    n = only_first + only_second
    tail = sum(math.comb(n, k) for k in range(min(only_first, only_second) + 1))
    return min(1.0, 2.0 * tail / 2**n)
