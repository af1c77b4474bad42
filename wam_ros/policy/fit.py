"""Whether a checkpoint fits a robot's contract."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from wam_ros.contract.model import Contract

if TYPE_CHECKING:
    from wam_ros.wam.adapter import Adapter


def differences(contract: Contract, adapter: Adapter) -> list[str]:
    """Everything in which they differ, both values named; empty when they fit."""
    return [*_times(contract, adapter), *_widths(contract, adapter), *_keys(contract, adapter)]


def _times(contract: Contract, adapter: Adapter) -> Iterator[str]:
    rates = contract.rates
    if adapter.horizon != rates.horizon:
        yield (
            f"the checkpoint gives {adapter.horizon} rows a chunk, the contract's rates.horizon "
            f"is {rates.horizon}"
        )
    period = adapter.step_period
    if period is not None and abs(period - rates.step_period) > 1e-4:
        yield (
            f"the checkpoint was trained at {1 / period:g} rows per second, the contract's "
            f"rates.action is {rates.action:g}"
        )


def _widths(contract: Contract, adapter: Adapter) -> Iterator[str]:
    """Where a robot has more joints than the network has inputs or outputs.

    Statistics of a wider robot may well be in the checkpoint: the folder lists every embodiment.
    """
    dit, metadata = adapter.config.dit, adapter.metadata
    state = sum(metadata.state_statistics[k].dim for k in adapter.state_keys)
    for what, ours, most in (
        ("state", state, dit.max_state_dim),
        ("action", sum(adapter.dims.values()), dit.action_dim),
    ):
        if ours > most:
            yield (
                f"{contract.embodiment} has {ours} {what} values, the checkpoint's network takes "
                f"{most}: it was made for another robot"
            )


def _keys(contract: Contract, adapter: Adapter) -> Iterator[str]:
    cameras = {c.model_key.removeprefix("video.") for c in contract.cameras}
    if cameras != set(adapter.cameras):
        yield (
            f"the checkpoint looks through {', '.join(adapter.cameras)}, the contract has "
            f"{', '.join(sorted(cameras))}"
        )
    ours = {k.key: len(k.joints) for k in contract.state}
    statistics = adapter.metadata.state_statistics
    for key in adapter.state_keys:
        if ours.get(key) != statistics[key].dim:
            yield (
                f"state key {key} has {statistics[key].dim} values in the checkpoint and "
                f"{ours.get(key, 'none')} in the contract"
            )
    ours = {k.key: len(k.joints) for k in contract.action}
    for key, dim in adapter.dims.items():
        if ours.get(key) != dim:
            yield (
                f"action key {key} has {dim} values in the checkpoint and "
                f"{ours.get(key, 'none')} in the contract"
            )
    relative = {k.key for k in contract.action if k.relative and k.key in adapter.dims}
    if relative != set(adapter.relative):
        yield (
            f"relative action keys are {', '.join(sorted(adapter.relative)) or 'none'} in the "
            f"checkpoint and {', '.join(sorted(relative)) or 'none'} in the contract"
        )


def view_note(contract: Contract, size: tuple[int, int] | None) -> str:
    """What is lost because live views are not of the ``size`` (height, width) a model takes.

    Empty when they are, or when the model does not say. Such views are scaled, so it is a loss of
    detail and no error.
    """
    ours = (contract.view_height, contract.view_width)
    if size is None or size == ours:
        return ""
    return (
        f"the model takes views of {size[1]}x{size[0]}, the contract of {contract.robot} publishes "
        f"{ours[1]}x{ours[0]}, which are scaled; for views as it was trained on, write "
        f"view: {{width: {size[1]}, height: {size[0]}}} into the contract"
    )
