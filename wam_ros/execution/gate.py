"""The last check before a command leaves. It passes or trips; it never edits.

Everything here is worked out from the commands themselves and from the contract, and shares no
code with the planner or the limiter, so that a mistake there is caught and not repeated.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

from wam_ros.contract.data import FloatArray
from wam_ros.contract.model import Limits
from wam_ros.execution.clearance import Space

_SLACK = 1e-6  # rad or m, for rounding in the limiter's arithmetic
_SPACE_RATE = 50.0  # Hz
_DIFFERENCES = ("velocity", "acceleration", "jerk")
_STILL = 0.05
"""Share of the following error by which readings of an arm at rest may change in a moment."""

_LOST = 2.0
"""Following errors beyond which no obstacle explains where an arm is."""


class Gate:
    """Checks on what is about to be sent and on what comes back.

    Every method returns why it trips, naming joint and numbers, or an empty string.

    Parameters
    ----------
    names, limits
        The commanded joints, in order.
    period
        Seconds between commands.
    space
        Workspace and self-distance checks; None leaves them out.
    """

    def __init__(
        self,
        names: Sequence[str],
        limits: Sequence[Limits],
        period: float,
        space: Space | None = None,
    ) -> None:
        self._names = tuple(names)
        self._lower = np.array([x.lower for x in limits])
        self._upper = np.array([x.upper for x in limits])
        self._error = np.array([x.following_error for x in limits])
        self._speed = np.array([x.velocity for x in limits])
        # Largest first, second and third difference of commands; 0.1 % and rounding are let pass.
        self._most = np.stack(
            [
                1.001 * np.array([getattr(x, k) for x in limits]) * period**order + _SLACK * 1e-3
                for order, k in enumerate(_DIFFERENCES, start=1)
            ]
        )
        self._low, self._high = self._lower - _SLACK, self._upper + _SLACK
        self._space = space
        self._every = max(1, round(1.0 / (period * _SPACE_RATE)))
        self._count = 0
        self._sent: deque[FloatArray] = deque(maxlen=3)

    def restart(self, position: FloatArray) -> None:
        """Begin at rest at ``position`` ``(D,)``, the measured state at arming."""
        self._sent.extend([position.copy()] * 3)
        if self._space is not None:
            self._space.restart(position)

    # ---- commands ------------------------------------------------------------------------------

    def check(self, command: FloatArray) -> str:
        """Finite, inside the range, and within what the last three commands allow.

        A joint that started outside its range may move inward only.
        """
        # Counting is how numpy tells `any` and `all` fastest; this runs in every cycle.
        if np.count_nonzero(np.isfinite(command)) < len(command):
            return f"command of {self._name(~np.isfinite(command))} is not a number"
        if not self._sent:
            return "a command before arming"
        third, second, last = self._sent
        out = (command < self._low) & (command < last - _SLACK)
        out |= (command > self._high) & (command > last + _SLACK)
        if np.count_nonzero(out):
            i = int(np.argmax(out))
            return (
                f"command {command[i]:.4f} of {self._names[i]} leaves "
                f"[{self._lower[i]:.4f}, {self._upper[i]:.4f}]"
            )
        step = command - last
        bend = step - (last - second)
        value = np.array([step, bend, bend - (last - 2.0 * second + third)])
        beyond = np.abs(value) > self._most
        if np.count_nonzero(beyond):
            order, i = divmod(int(np.argmax(beyond)), len(command))
            what = ("speed", *_DIFFERENCES[1:])[order]
            share = abs(value[order, i]) / self._most[order, i]
            return f"{what} of {self._names[i]} is {share:.2f} times its limit"
        self._sent.append(command.copy())
        return ""

    def check_space(self, command: FloatArray, stop: FloatArray | None = None) -> str:
        """Workspace and self-distance, at 50 Hz; ``stop`` is where a stop from here would end."""
        self._count += 1
        if self._space is None or self._count % self._every:
            return ""
        return self._space.check(command, command if stop is None else stop)

    @property
    def space_due(self) -> bool:
        """Whether the next `check_space` will look."""
        return self._space is not None and (self._count + 1) % self._every == 0

    # ---- measurements --------------------------------------------------------------------------

    def following_error(
        self, reference: FloatArray, measured: FloatArray
    ) -> tuple[float, float, str]:
        """Largest |reference - measured|, the largest share of what trips, and why it trips."""
        error = np.abs(reference - measured)
        shares = error / self._error
        largest, share = float(error.max(initial=0.0)), float(shares.max(initial=0.0))
        if not np.count_nonzero(shares > 1.0):
            return largest, share, ""
        i = int(np.nanargmax(shares))
        return (
            largest,
            share,
            (
                f"{self._names[i]} is {error[i]:.3f} away from its reference, "
                f"more than {self._error[i]:.3f}: is something in its way?"
            ),
        )

    def unexplained(self, reference: FloatArray, measured: FloatArray) -> str:
        """Whether an arm is further away than one that something has stopped.

        That is noticed at the following error's limit, or when readings are stale, and the
        reference brakes within another one. (The G1's waist, stopped at full speed just when its
        readings end, gets 1 % further.) Beyond, somebody else moved the arm, or the reading is
        wrong, and going there would be a motion nobody asked for.
        """
        i = int(np.argmax(np.abs(reference - measured) / self._error))
        if abs(reference[i] - measured[i]) <= _LOST * self._error[i]:
            return ""
        return (
            f"{self._names[i]} reads {measured[i]:.3f}, {abs(reference[i] - measured[i]):.3f} from "
            "where it was sent: was it moved, or is its encoder wrong?"
        )

    def far_outside(self, measured: FloatArray) -> str:
        """Why one may not arm here: a joint so far outside its range that the reading is wrong."""
        excess = np.maximum(self._lower - measured, measured - self._upper) - self._error
        i = int(np.argmax(excess))
        if excess[i] <= 0.0:
            return ""
        return (
            f"{self._names[i]} reads {measured[i]:.3f}, far outside "
            f"[{self._lower[i]:.3f}, {self._upper[i]:.3f}]: check its encoder, or move it back"
        )

    def moved(self, joint: int, change: float) -> bool:
        """Whether a joint at rest cannot read so much more, or less, than a moment ago."""
        return bool(abs(change) > _STILL * self._error[joint])

    def leap(self, joint: int, change: float, seconds: float) -> str:
        """Whether a reading can follow the one ``seconds`` before it at any credible speed."""
        if not np.isfinite(change) or not np.isfinite(seconds):
            return ""
        most = self._error[joint] + 2.0 * self._speed[joint] * max(seconds, 0.0)
        if abs(change) <= most:
            return ""
        return (
            f"reading of {self._names[joint]} jumped by {abs(change):.3f} in "
            f"{seconds * 1e3:.0f} ms: check its encoder and driver"
        )

    def _name(self, where: np.ndarray) -> str:
        return self._names[int(np.argmax(where))]
