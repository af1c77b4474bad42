"""How many frames of a camera never arrive, told from the gaps in their stamps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

ENOUGH = 12
"""Stamps needed before anything is said."""


def lost_share(stamps: Sequence[float]) -> float:
    """Share 0..1 of frames missing between the first and the last of ``stamps`` (s, rising).

    The camera's period is taken from its shortest gaps (10th percentile), so neither the nominal
    rate nor a slow but complete camera matters; a gap counts as the nearest number of periods,
    which forgives jitter up to half of one. 0 while there are fewer than `ENOUGH` stamps.
    """
    if len(stamps) < ENOUGH:
        return 0.0
    gaps = np.diff(np.asarray(stamps, dtype=np.float64))
    period = float(np.percentile(gaps, 10))
    if period <= 0.0:
        return 0.0
    sent = float(np.sum(np.maximum(1.0, np.round(gaps / period))))
    return 1.0 - len(gaps) / sent
