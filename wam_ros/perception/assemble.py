"""From aligned samples to an Observation, by the contract."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from wam_ros.contract.data import FloatArray, Observation
from wam_ros.contract.model import Contract
from wam_ros.perception.images import Rgb, decode, fit
from wam_ros.perception.sync import Aligned, SourceSpec


def source_specs(contract: Contract) -> list[SourceSpec]:
    """Cameras first, then joint-state sources, as in Observation.source_names."""
    return [SourceSpec(s.name, s.policy, s.tolerance, s.timeout) for s in contract.inputs]


def vector(contract: Contract, names: Sequence[str], values: Mapping[str, float]) -> FloatArray:
    """Joint values in the order of ``names``, grippers clipped to their limits.

    A gripper's raw reading overshoots its end stops a little; the models were trained on data that
    was clipped to 0..1 (AgiBot's converter does so), so live input and data sets are clipped alike.
    """
    out = np.array([values[n] for n in names], dtype=np.float64)
    for group in contract.groups:
        if group.role != "gripper":
            continue
        for joint in group.joints:
            if joint.name in names:
                i = list(names).index(joint.name)
                out[i] = min(max(out[i], joint.limits.lower), joint.limits.upper)
    return out


def picture(contract: Contract, message: Any) -> Rgb:
    """A camera message as the model sees it: RGB, whole, at the contract's view size."""
    return fit(decode(message), contract.view_width, contract.view_height)


def assemble(
    contract: Contract,
    aligned: Aligned,
    sequence: int,
    views: Mapping[str, Rgb] | None = None,
) -> Observation:
    """Decode and resize the chosen pictures and join the state vector.

    Pictures are decoded here and not on arrival, so that frames nobody uses cost nothing. Whoever
    has ``views`` that decode themselves when they are looked at passes those.

    Raises
    ------
    ImageError
        A chosen picture cannot be decoded.
    """
    if views is None:
        views = {c.name: picture(contract, aligned.picked[c.name].value) for c in contract.cameras}
    joints: dict[str, float] = {}
    for source in contract.sources:
        values: Mapping[str, float] = aligned.picked[source.name].value
        joints.update(values)
    return Observation(
        t0=aligned.t0,
        views=views,
        state=vector(contract, contract.state_names, joints),
        ages={n: aligned.t0 - p.stamp for n, p in aligned.picked.items()},
        skew=aligned.skew,
        sequence=sequence,
    )
