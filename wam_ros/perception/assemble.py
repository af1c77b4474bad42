"""From aligned samples to an Observation, by the contract."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from wam_ros.contract.data import Observation
from wam_ros.contract.model import Contract
from wam_ros.perception.images import decode, fit
from wam_ros.perception.sync import Aligned, SourceSpec


def source_specs(contract: Contract) -> list[SourceSpec]:
    """Cameras first, then joint-state sources, as in Observation.source_names."""
    return [SourceSpec(s.name, s.policy, s.tolerance, s.timeout) for s in contract.inputs]


def assemble(contract: Contract, aligned: Aligned, sequence: int) -> Observation:
    """Decode and resize the chosen pictures and join the state vector.

    Pictures are decoded here and not on arrival, so that frames nobody uses cost nothing.

    Raises
    ------
    ImageError
        A chosen picture cannot be decoded.
    """
    views = {
        c.name: fit(decode(aligned.picked[c.name].value), contract.view_width, contract.view_height)
        for c in contract.cameras
    }
    joints: dict[str, float] = {}
    for source in contract.sources:
        values: Mapping[str, float] = aligned.picked[source.name].value
        joints.update(values)
    return Observation(
        t0=aligned.t0,
        views=views,
        state=np.array([joints[n] for n in contract.state_names]),
        ages={n: aligned.t0 - p.stamp for n, p in aligned.picked.items()},
        skew=aligned.skew,
        sequence=sequence,
    )
