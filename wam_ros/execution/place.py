"""From a chunk to targets on the executor's time line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.signal import savgol_filter

from wam_ros.contract.data import ActionChunk, FloatArray
from wam_ros.execution.plan import smoothstep

_SAVGOL_WINDOW, _SAVGOL_ORDER = 21, 3
_MAX_ROWS = 1000
CLOSE = 0.3
"""Share of a row's period after now up to which a row is over: a knot so close to the splice would
only repeat it."""


@dataclass(frozen=True)
class Targets:
    """Rows ``(H, D)`` due at ``times`` ``(H,)``, evenly ``step`` seconds apart."""

    times: FloatArray
    rows: FloatArray
    step: float

    @property
    def end(self) -> float:
        """Time of the last row."""
        return float(self.times[-1])

    def at(self, t: float) -> FloatArray:
        """Row ``(D,)`` at ``t``, linear between rows, held at both ends."""
        last = len(self.times) - 1
        where = min(max((t - float(self.times[0])) / self.step, 0.0), float(last))
        i = min(int(where), last - 1)
        share = where - i
        return np.asarray((1.0 - share) * self.rows[i] + share * self.rows[i + 1])

    def held(self, seconds: float) -> Targets:
        """The same rows with the last one repeated for at least ``seconds``."""
        count = max(1, int(np.ceil(seconds / self.step - 1e-9)))
        times = self.end + self.step * np.arange(1, count + 1)
        rows = np.repeat(self.rows[-1:], count, axis=0)
        return Targets(
            np.concatenate([self.times, times]), np.concatenate([self.rows, rows]), self.step
        )

    def after(self, t: float) -> Targets:
        """Only the rows later than ``t``."""
        keep = self.times > t
        return Targets(self.times[keep], self.rows[keep], self.step)

    def thinned(self, least: float) -> Targets:
        """Every so many rows, the last one among them, so that they are about ``least`` s apart.

        Rows that are dense beside the smoothing say nothing more, and make its system so stiff
        that rounding shows.
        """
        every = int(least / self.step)
        if every <= 1:
            return self
        keep = np.arange(len(self.times) - 1, -1, -every)[::-1]
        return Targets(self.times[keep], self.rows[keep], self.step * every)


def check_chunk(chunk: ActionChunk, names: Sequence[str]) -> str:
    """Return why a chunk cannot be executed by a robot driving ``names``, or an empty string."""
    missing = [n for n in names if n not in chunk.names]
    if missing:
        return f"chunk has no column for {', '.join(missing)}"
    if len(set(chunk.names)) != len(chunk.names):
        return "chunk names a joint twice"
    if chunk.actions.ndim != 2 or chunk.actions.shape[1] != len(chunk.names):
        return f"chunk of shape {chunk.actions.shape} does not fit {len(chunk.names)} names"
    if len(chunk.kinds) != len(chunk.names):
        return f"chunk has {len(chunk.kinds)} kinds for {len(chunk.names)} names"
    if not 2 <= chunk.horizon <= _MAX_ROWS:
        return f"chunk has {chunk.horizon} rows; 2 to {_MAX_ROWS} are needed"
    if not (np.isfinite(chunk.step_period) and 0.001 <= chunk.step_period <= 1.0):
        return f"step period {chunk.step_period} s is outside 0.001 to 1 s"
    if not np.isfinite(chunk.t0):
        return f"stamp {chunk.t0} is not a number"
    wrong = [n for n in names if chunk.kinds[chunk.names.index(n)] != "position"]
    if wrong:
        return f"chunk gives {', '.join(wrong)} as velocity; positions are expected"
    bad = ~np.isfinite(chunk.actions)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        return f"row {row}, {chunk.names[column]} is not a number"
    return ""


def place(
    chunk: ActionChunk, names: Sequence[str], start: float, lower: FloatArray, upper: FloatArray
) -> tuple[Targets, FloatArray]:
    """Rows of ``chunk`` for the joints ``names``, row 0 due at ``start``, clipped to the range.

    Also returns by how much each joint's rows lay beyond its range, ``(D,)``.
    """
    columns = [chunk.names.index(n) for n in names]
    times = start + np.arange(chunk.horizon, dtype=np.float64) * chunk.step_period
    wanted = chunk.actions[:, columns]
    rows = np.clip(wanted, lower, upper)
    return Targets(times, rows, chunk.step_period), np.abs(wanted - rows).max(axis=0)


def savgol(rows: FloatArray) -> FloatArray:
    """Smooth rows ``(H, D)`` as DreamZero's paper does before execution.

    Cubic upsampling by two, a Savitzky-Golay filter of window 21 and order 3, then every second
    row. A chunk shorter than the window takes the longest odd window that fits.
    """
    n = len(rows)
    half = CubicSpline(np.arange(n), rows, axis=0)(np.arange(2 * n - 1) / 2.0)
    window = min(_SAVGOL_WINDOW, len(half) - 1 + len(half) % 2)
    if window <= _SAVGOL_ORDER:
        return rows
    return np.asarray(savgol_filter(half, window, _SAVGOL_ORDER, axis=0)[::2])


def ensemble(new: Targets, old: Targets | None, share: float) -> Targets:
    """Mix ``share`` of what was expected so far into new targets where the two overlap.

    Applied chunk after chunk this is temporal ensembling with weights that fall by ``share`` per
    chunk. The share runs out towards the end of the old rows, so that no step is left there.
    """
    if old is None or share <= 0.0:
        return new
    left = np.clip((old.end - new.times) / max(old.end - new.times[0], 1e-9), 0.0, 1.0)
    weight = share * smoothstep(3.0 * left)[:, None]
    expected = np.stack([old.at(float(t)) for t in new.times])
    return Targets(new.times, weight * expected + (1.0 - weight) * new.rows, new.step)


def reanchor(new: Targets, now: float, offset: FloatArray, fade: float) -> Targets:
    """Shift targets by ``offset`` ``(D,)`` at ``now``, fading the shift away over ``fade`` s."""
    if fade <= 0.0:
        return new
    weight = 1.0 - smoothstep((new.times - now) / fade)[:, None]
    return Targets(new.times, new.rows + weight * offset, new.step)
