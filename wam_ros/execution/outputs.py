"""From the control vector to what each driver topic wants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wam_ros.contract.data import FloatArray
from wam_ros.contract.model import Contract, Output
from wam_ros.execution.executor import Executor

_POINTS = 8


@dataclass(frozen=True)
class Point:
    """A future point of a window: ``after`` seconds from now, all in the driver's unit."""

    after: float
    positions: FloatArray
    velocities: FloatArray
    accelerations: FloatArray


@dataclass
class Channel:
    """One command topic: its columns of the control (or velocity) vector and when it is due.

    ``stride`` ``(C,)`` is how far each joint may go between two messages at its speed limit,
    ``range`` ``(2, C)`` where it may be.
    """

    output: Output
    columns: list[int]
    every: int
    stride: FloatArray
    range: FloatArray
    velocity: bool = False
    _last: FloatArray | None = None
    """The last value sent, in contract units."""
    _held: bool = False
    """Whether it was held back from the command."""
    _asked: int | None = None

    def due(self, tick: int) -> bool:
        """Whether this topic is sent on control cycle number ``tick``, or its turn was missed."""
        before, self._asked = self._asked, tick
        return before is None or tick // self.every != before // self.every

    def raw(self, command: FloatArray, measured: FloatArray) -> FloatArray | None:
        """Values in the driver's unit; None where nothing should be sent.

        Where the driver bounds the distance from the measured position, the value is held back
        to just inside that bound: a robot that lags is waited for. Away from the command and back
        to it the value goes no faster than the joints' speed limits. Where readings run away
        faster, the driver would refuse it: nothing is sent until it is within the bound again.
        """
        wanted = value = command[self.columns]
        if self.output.max_step is None:
            return np.asarray(self.output.scale * value + self.output.offset)
        near = self._near(wanted, measured)
        held = bool(np.abs(near - wanted).max() > 1e-9)
        if self._last is None:
            value = near
        elif held or self._held:
            value = np.clip(near, self._last - self.stride, self._last + self.stride)
            held = bool(np.abs(value - wanted).max() > 1e-9)
        self._last, self._held = value, held
        if held and (np.abs(value - measured[self.columns]) > self.output.max_step).any():
            return None
        return np.asarray(self.output.scale * value + self.output.offset)

    def message(self, core: Executor, command: FloatArray) -> FloatArray | None:
        """What goes out for ``command`` now, in the driver's unit and the output's joint order.

        A trajectory is a window; this is its first point, the one that is due.
        """
        if self.velocity:
            return self.output.scale * core.base.command[self.columns] + self.output.offset
        if self.output.type == "trajectory_msgs/msg/JointTrajectory":
            return self.window(core)[0].positions
        return self.raw(command, core.measured)

    def forget(self) -> None:
        """Nothing is being sent: the next value follows none."""
        self._last, self._held = None, False

    def window(self, core: Executor) -> list[Point]:
        """The next ``output.window`` seconds, for joint_trajectory_controller.

        Single points would leave velocity at every point to the controller's guess; with
        velocities and accelerations its quintic follows our path, and the window bridges late
        messages. The last point may move: what follows replaces it.
        """
        step = max(1.0 / self.output.rate, self.output.window / _POINTS)
        count = max(1, round(self.output.window / step))
        scale, points = self.output.scale, []
        for i, state in enumerate(core.ahead(step, count)):
            p, v, a = state[:, self.columns]
            near = self._near(p, core.measured)
            free = near == p  # a value that is held back stands still
            points.append(
                Point(
                    (i + 1) * step,
                    scale * near + self.output.offset,
                    scale * np.where(free, v, 0.0),
                    scale * np.where(free, a, 0.0),
                )
            )
        return points

    def _near(self, value: FloatArray, measured: FloatArray) -> FloatArray:
        if self.output.max_step is None:
            return value
        seen = measured[self.columns]
        reach = 0.95 * self.output.max_step
        held = np.clip(value, seen - reach, seen + reach)
        # Near an arm that reads outside its range is no reason to leave it.
        held = np.clip(held, np.minimum(self.range[0], value), np.maximum(self.range[1], value))
        return np.asarray(np.where(np.isfinite(seen), held, value))


def undriven(driven: Sequence[Channel], core: Executor) -> list[str]:
    """Joints of the control vector that none of the channels ``driven`` sends."""
    sent = {i for c in driven if not c.velocity for i in c.columns}
    return [n for i, n in enumerate(core.names) if i not in sent]


def channels(contract: Contract, core: Executor, sim: bool) -> list[Channel]:
    """Channels to drive; outputs with ``status: unknown`` exist in simulation only.

    An output drives either positions or speeds; one that names joints of both is refused.

    Raises
    ------
    ValueError
        An output mixes position and velocity joints.
    """
    result = []
    for output in contract.outputs:
        usable = output.enabled and (sim or output.status != "unknown")
        every = max(1, round(contract.rates.control / output.rate))
        for velocity, names in enumerate((core.names, core.base.names)):
            columns = [names.index(j) for j in output.joints if j in names]
            if not (usable and columns):
                continue
            others = core.names if velocity else core.base.names
            if any(j in others for j in output.joints):
                raise ValueError(
                    f"outputs.{output.name} mixes position and velocity joints; split it"
                )
            if len(columns) == len(output.joints):
                period = every / contract.rates.control
                limits = [contract.joints[names[i]].limits for i in columns]
                stride = period * np.array([x.velocity for x in limits])
                bounds = np.array([[x.lower for x in limits], [x.upper for x in limits]])
                result.append(Channel(output, columns, every, stride, bounds, bool(velocity)))
    return result
