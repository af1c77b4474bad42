"""Turn the rows of a chunk into a C2 path that starts where the reference is.

The path is a quintic Hermite spline: every knot has a position, a velocity and an acceleration, and
both neighbouring segments share them, so position, velocity and acceleration are continuous
everywhere. The first knot takes all three from the current reference, which makes a splice smooth
by construction; the last one keeps its slope instead of coming to rest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wam_ros.contract.data import FloatArray

# Rows of the inverse Hermite map: coefficients of s^3, s^4 and s^5 on [0, 1] from
# (p0, v0, a0, p1, v1, a1), with velocity and acceleration scaled by the segment's length.
_HERMITE = np.array(
    [
        [-10.0, -6.0, -1.5, 10.0, -4.0, 0.5],
        [15.0, 8.0, 1.5, -15.0, 7.0, -1.0],
        [-6.0, -3.0, -0.5, 6.0, -3.0, 0.5],
    ]
)


@dataclass(frozen=True)
class Path:
    """Piecewise quintic over knots ``times`` (N,), coefficients ``(N-1, 6, D)`` in ``s`` 0..1."""

    times: FloatArray
    coefficients: FloatArray

    @property
    def end(self) -> float:
        """Time of the last knot."""
        return float(self.times[-1])

    def sample(self, t: float) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Position, velocity and acceleration at ``t``, each ``(D,)``.

        Before the first knot the first is returned; after the last the path rests at its end.
        """
        i = int(np.clip(np.searchsorted(self.times, t, side="right") - 1, 0, len(self.times) - 2))
        h = float(self.times[i + 1] - self.times[i])
        s = (t - float(self.times[i])) / h
        c = self.coefficients[i]
        if s >= 1.0 and i == len(self.times) - 2:
            zero = np.zeros(c.shape[1])
            return c.sum(axis=0), zero, zero
        s = min(max(s, 0.0), 1.0)
        powers = s ** np.arange(6)
        k = np.arange(1, 6)
        velocity = (k * powers[:5]) @ c[1:] / h
        acceleration = (np.array([2.0, 6.0, 12.0, 20.0]) * powers[:4]) @ c[2:] / h**2
        return powers @ c, velocity, acceleration


def fit(
    times: FloatArray,
    positions: FloatArray,
    start_velocity: FloatArray,
    start_acceleration: FloatArray,
) -> Path:
    """Fit a C2 path through ``positions`` ``(N, D)`` at increasing ``times`` ``(N,)``, N >= 2.

    Interior slopes are those of the parabola through three neighbouring knots; the last knot
    repeats the slope of its segment with no acceleration, so the tail does not come to rest.
    """
    h = np.diff(times)[:, None]
    slope = np.diff(positions, axis=0) / h
    velocity = np.empty_like(positions)
    acceleration = np.zeros_like(positions)
    velocity[0], acceleration[0] = start_velocity, start_acceleration
    velocity[-1] = slope[-1]
    if len(times) > 2:
        both = h[:-1] + h[1:]
        velocity[1:-1] = (h[1:] * slope[:-1] + h[:-1] * slope[1:]) / both
        acceleration[1:-1] = 2.0 * (slope[1:] - slope[:-1]) / both
    p0, p1 = positions[:-1], positions[1:]
    v0, v1 = velocity[:-1] * h, velocity[1:] * h
    a0, a1 = acceleration[:-1] * h**2, acceleration[1:] * h**2
    ends = np.stack([p0, v0, a0, p1, v1, a1], axis=1)
    high = np.einsum("ij,njd->nid", _HERMITE, ends)
    low = np.stack([p0, v0, 0.5 * a0], axis=1)
    return Path(times=times.copy(), coefficients=np.concatenate([low, high], axis=1))


def smoothstep(x: FloatArray) -> FloatArray:
    """0 below 0, 1 above 1, with zero slope and curvature at both ends (Perlin's quintic)."""
    x = np.clip(x, 0.0, 1.0)
    return np.asarray(x**3 * (x * (6.0 * x - 15.0) + 10.0))


def splice(
    now: float,
    reference: tuple[FloatArray, FloatArray, FloatArray],
    times: FloatArray,
    rows: FloatArray,
    old: Path | None,
    fade: float,
    blend: float,
) -> tuple[Path, FloatArray]:
    """Join future ``rows`` ``(N, D)`` due at ``times`` to the motion under way.

    Parameters
    ----------
    now
        Splice time; the path starts here from ``reference`` (position, velocity, acceleration).
    times, rows
        Rows of the chunk around and after ``now``; ``times[0]`` may lie before it.
    old
        Path being followed, blended out over ``blend`` seconds.
    fade
        Seconds over which the offset between reference and chunk at ``now`` is faded out.

    Returns
    -------
    Path and the offset ``(D,)`` that was found at the splice.
    """
    at_now = np.array([np.interp(now, times, rows[:, d]) for d in range(rows.shape[1])])
    offset = reference[0] - at_now
    # A knot closer than half a row to the splice would force large accelerations to reach it.
    period = float(np.median(np.diff(times))) if len(times) > 1 else 0.03
    keep = times > now + 0.5 * period
    if not keep.any():
        keep[-1] = True
    t = np.maximum(times[keep], now + 0.5 * period)
    weight = smoothstep((t - now) / fade)[:, None] if fade > 0 else np.ones((len(t), 1))
    target = rows[keep] + (1.0 - weight) * offset
    if old is not None and blend > 0:
        w = smoothstep((t - now) / blend)[:, None]
        past = np.stack([old.sample(x)[0] for x in t])
        target = w * target + (1.0 - w) * past
    knots = np.concatenate([[now], t])
    path = fit(knots, np.vstack([reference[0], target]), reference[1], reference[2])
    return path, offset
