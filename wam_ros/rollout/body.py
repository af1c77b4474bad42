"""The simulated robot and the executor that drives it, one control period at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from wam_ros.contract.data import FloatArray
from wam_ros.contract.model import Contract, StateSource
from wam_ros.execution import Executor, Settings
from wam_ros.execution.clearance import Space
from wam_ros.execution.outputs import Channel, channels
from wam_ros.resources import share
from wam_ros.sim.plant import TIMESTEP, Plant
from wam_ros.sim.urdf import expand

JointHook = Callable[[float, StateSource, list[float]], None]
CommandHook = Callable[[float, Channel, FloatArray], None]


def space_of(contract: Contract) -> Space:
    """The executor's distance and workspace checks for a contract."""
    path = Path(contract.urdf)
    return Space(contract, expand(path if path.is_absolute() else share() / path))


def steps_of(rate: float) -> int:
    """Physics steps in a control period of ``1 / rate`` s; ValueError unless they are whole."""
    steps = 1.0 / (rate * TIMESTEP)
    whole = max(1, round(steps))
    if abs(steps - whole) > 1e-6:
        raise ValueError(
            f"{rate:g} Hz does not divide the physics rate of {1.0 / TIMESTEP:g} Hz; "
            "a rollout needs 500, 250, 100, ... Hz"
        )
    return whole


class Body:
    """A plant, an executor, and the driver topics between them, without the topics.

    Commands pass through the outputs of the contract with their rates, units and bounds, and joint
    states through its sources, exactly as the executor's and the simulation's node do it.
    """

    def __init__(self, plant: Plant, settings: Settings, space: Space) -> None:
        contract = plant.contract
        try:
            self._steps = steps_of(contract.rates.control)
        except ValueError as err:
            raise ValueError(f"rates.control: {err}") from err
        self.plant, self.contract = plant, contract
        self.core = Executor(contract, settings, space)
        self._channels = channels(contract, self.core, sim=True)
        self._joints = set(contract.joints)

    @property
    def period(self) -> float:
        """Seconds per control period."""
        return self._steps * TIMESTEP

    def read(self, now: float, hook: JointHook | None = None, resting: bool = False) -> None:
        """Read every joint source into the executor; ``hook`` gets the driver's raw values.

        ``resting``: the robot has not moved before now.
        """
        positions = self.plant.positions()
        for source in self.contract.sources:
            raw = [(positions[j] - source.offset) / source.scale for j in source.joints]
            self.core.set_measured(self.values(source, raw), now, resting)
            if hook is not None:
                hook(now, source, raw)

    @staticmethod
    def values(source: StateSource, raw: list[float]) -> dict[str, float]:
        """Raw values of a source in contract units, by joint."""
        return {
            j: v * source.scale + source.offset for j, v in zip(source.joints, raw, strict=True)
        }

    def tick(self, number: int, now: float, hook: CommandHook | None = None) -> None:
        """Control period ``number`` at ``now``: one command out, then the physics."""
        command = self.core.tick(now)
        for channel in self._channels:
            if command is None:
                channel.forget()
            elif channel.due(number):
                values = channel.message(self.core, command)
                if values is None:
                    continue
                if hook is not None:
                    hook(now, channel, values)
                if not channel.velocity:
                    self._apply(channel, values)
        self.plant.step(self._steps)

    def _apply(self, channel: Channel, values: FloatArray) -> None:
        output = channel.output
        self.plant.set_targets(
            {
                n: (v - output.offset) / output.scale
                for n, v in zip(output.joints, values.tolist(), strict=True)
            }
        )
