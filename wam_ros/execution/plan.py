"""Turn the rows of a chunk into a C2 path that starts where the reference is.

The path is a minimum-jerk smoothing spline. Of all curves that start at the reference with its
position, velocity and acceleration it is the one that minimises

    sum_i h (x(t_i) - row_i)^2  +  tau^6 * integral of (d3x/dt3)^2 dt .

A chunk brings its own future, so smoothing costs no delay: away from the ends, a motion of angular
frequency w passes with gain 1 / (1 + (w tau)^6) and no phase shift. Rows that disagree with the
motion under way (noise, a new bias, another mode) are joined as gently as ``tau`` asks. The end is
free, so the tail does not come to rest, unless ``rest`` is asked for.

Between knots the minimiser is a quintic, so the unknowns are position, velocity and acceleration
at every knot and the optimum is one banded linear system, the same for all joints (Reinsch 1967
for the cubic case).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg.lapack import dpbsv

from wam_ros.contract.data import FloatArray

# Coefficients of s^0..s^5 on [0, 1] from (p0, v0, a0, p1, v1, a1), with velocity and acceleration
# scaled by the segment's length and its square.
_HERMITE = np.array(
    [
        [1.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        [0.0, 1.0, 0.0, 0.0, 0.0, 0.0],
        [0.0, 0.0, 0.5, 0.0, 0.0, 0.0],
        [-10.0, -6.0, -1.5, 10.0, -4.0, 0.5],
        [15.0, 8.0, 1.5, -15.0, 7.0, -1.0],
        [-6.0, -3.0, -0.5, 6.0, -3.0, 0.5],
    ]
)
# Integral over [0, 1] of the squared third derivative, as a form in the coefficients of s^3..s^5.
_JERK = np.array([[36.0, 72.0, 120.0], [72.0, 192.0, 360.0], [120.0, 360.0, 720.0]])
_ENERGY = _HERMITE[3:].T @ _JERK @ _HERMITE[3:]
_NUDGE = 1e-12
_FIRM = 30.0
_DETOURS = ((1.25, 0.1), (1.25, 0.25), (1.5, 0.4))
"""For a joint whose path breaks a limit: times more smoothing, and seconds of rows left out."""


@dataclass(frozen=True)
class Path:
    """Piecewise quintic over knots ``times`` (N,), coefficients ``(N-1, 6, D)`` in ``s`` 0..1."""

    times: FloatArray
    coefficients: FloatArray

    @property
    def start(self) -> float:
        """Time of the first knot."""
        return float(self.times[0])

    @property
    def end(self) -> float:
        """Time of the last knot."""
        return float(self.times[-1])

    def sample(self, t: float) -> FloatArray:
        """Position, velocity and acceleration at ``t``, ``(3, D)``.

        Before the first knot its state is returned; after the last the path rests at its end.
        """
        i = min(max(int(self.times.searchsorted(t, "right")) - 1, 0), len(self.times) - 2)
        h = float(self.times[i + 1] - self.times[i])
        s = (t - float(self.times[i])) / h
        c = self.coefficients[i]
        if s > 1.0 + 1e-9:
            rest = np.zeros((3, c.shape[1]))
            rest[0] = c.sum(axis=0)
            return rest
        return np.asarray(_powers(min(max(s, 0.0), 1.0), h)[:3] @ c)

    def positions(self, t: FloatArray) -> FloatArray:
        """Positions ``(M, D)`` at ``t`` ``(M,)``; rests at its end."""
        return np.stack([self.sample(float(x))[0] for x in t])

    def extremes(self) -> FloatArray:
        """Largest |velocity|, |acceleration| and |jerk|, ``(3, D)``, at four moments per segment.

        Jerk is a parabola on each segment and acceleration a cubic, so four samples with both ends
        miss the true extreme by little; the limiter does not depend on this figure.
        """
        h = 1.0 / (self.times[1:] - self.times[:-1])
        scale = np.stack([h, h * h, h * h * h], axis=1)[:, :, None]
        found = np.abs(_MOMENTS @ self.coefficients)  # (N-1, 12, D)
        found = found.reshape(len(h), len(_MOMENTS) // 3, 3, -1).max(axis=1)
        return np.asarray((found * scale).max(axis=0))


def _powers(s: float, h: float) -> FloatArray:
    """Rows that turn coefficients into position and its first three derivatives, ``(4, 6)``."""
    s2, s3, s4 = s * s, s**3, s**4
    h1, h2, h3 = 1.0 / h, 1.0 / h**2, 1.0 / h**3
    return np.array(
        [
            [1.0, s, s2, s3, s4, s4 * s],
            [0.0, h1, 2 * s * h1, 3 * s2 * h1, 4 * s3 * h1, 5 * s4 * h1],
            [0.0, 0.0, 2 * h2, 6 * s * h2, 12 * s2 * h2, 20 * s3 * h2],
            [0.0, 0.0, 0.0, 6 * h3, 24 * s * h3, 60 * s2 * h3],
        ]
    )


_MOMENTS = np.concatenate([_powers(x, 1.0)[1:] for x in (0.0, 1 / 3, 2 / 3, 1.0)])
"""From coefficients to the first three derivatives at four moments of a segment, ``(12, 6)``."""


def fit(
    start: float,
    state: FloatArray,
    times: FloatArray,
    rows: FloatArray,
    tau: float,
    rest: bool = False,
    join: float = 0.0,
) -> Path:
    """Fit the smoothing spline.

    Parameters
    ----------
    start, state
        The path begins at time ``start`` with exactly this position, velocity, acceleration
        ``(3, D)``.
    times, rows
        Targets ``(N, D)`` at increasing ``times`` ``(N,)`` after ``start``, N >= 1.
    tau
        Smoothing time (s); 0 goes through every row.
    rest
        Whether the path must come to rest (no velocity, no acceleration) on its last row.
    join
        Rows due in the first ``join`` seconds are left out, all but the last one: the path meets
        the rows later, and gently.

    Raises
    ------
    numpy.linalg.LinAlgError
        The numbers are too far apart for the system to be solved.
    """
    knots = np.concatenate([[start], times])
    h = knots[1:] - knots[:-1]
    n = len(times)
    unit = float(knots[-1] - knots[0]) / n
    # Unknowns are scaled (p, v * unit, a * unit^2), which keeps the system well conditioned.
    grow = np.power.outer(h / unit, [0.0, 1.0, 2.0, 0.0, 1.0, 2.0])
    ratio = (max(tau, 0.05 * unit) / unit) ** 6 * (h / unit) ** -5.0
    blocks = ratio[:, None, None] * _ENERGY * grow[:, :, None] * grow[:, None, :]
    trust = np.where(times < start + join, 0.0, 1.0)
    trust[-1] = _FIRM if rest else 1.0
    band = np.zeros((6, 3 * n))
    for i in range(3):
        for j in range(i + 1):
            band[i - j, j::3] = blocks[:, 3 + i, 3 + j]
            band[i - j, j : 3 * (n - 1) : 3] += blocks[1:, i, j]
        for j in range(3):  # below the diagonal block: end of a segment against its start
            band[3 + i - j, j : 3 * (n - 1) : 3] = blocks[1:, 3 + i, j]
    # A single row leaves velocity and acceleration open; the nudge picks the smallest.
    nudge = _NUDGE * band[0].max()
    band[0, 1::3] += nudge
    band[0, 2::3] += nudge
    band[0, 0::3] += trust
    scale = np.array([[1.0], [unit], [unit**2]])
    # From the start's position on, so that the nudge and rounding draw towards where the joint is
    # and not towards zero.
    origin = state[0]
    first = state * scale
    first[0] = 0.0
    right = np.zeros((3 * n, rows.shape[1]))
    right[0::3] = trust[:, None] * (rows - origin)
    right[:3] -= blocks[0, 3:, :3] @ first
    if rest:
        _pin(band, right, 3 * n - 2)
    # LAPACK itself: SciPy's solveh_banded takes as long again for checks not needed here.
    _, found, failed = dpbsv(band, right, lower=1, overwrite_ab=1, overwrite_b=1)
    if failed:
        raise np.linalg.LinAlgError("the rows cannot be fitted by a path")
    ends = np.concatenate([first[None], found.reshape(n, 3, -1)])
    coefficients = _HERMITE @ _pairs(ends, h / unit)
    coefficients[:, 0] += origin
    return Path(knots, coefficients)


def fit_within(
    start: float,
    state: FloatArray,
    targets: tuple[FloatArray, FloatArray],
    tau: float,
    limits: FloatArray,
    rest: bool = False,
) -> Path:
    """Fit, and let those joints join their rows later whose path would need more than ``limits``.

    ``targets`` are times and rows of `fit`; ``limits`` are the largest velocity, acceleration and
    jerk ``(3, D)``. More smoothing alone would not do: a joint that is behind and is planned
    anew every few rows would be told to hurry later, each time. It has to meet its rows at a
    definite moment. Of the paths tried (`_DETOURS`) a joint takes the first that is inside the
    limits, or else the one that exceeds them least; the limiter has the last word.
    """
    times, rows = targets
    path = fit(start, state, times, rows, tau, rest)
    excess = (path.extremes() / limits).max(axis=0)
    for more, join in _DETOURS:
        beyond = np.flatnonzero(excess > 1.0)
        if not len(beyond):
            break
        again = fit(start, state[:, beyond], times, rows[:, beyond], more * tau, rest, join)
        found = (again.extremes() / limits[:, beyond]).max(axis=0)
        better = found < excess[beyond]
        path.coefficients[:, :, beyond[better]] = again.coefficients[:, :, better]
        excess[beyond[better]] = found[better]
    return path


def _pin(band: FloatArray, right: FloatArray, first: int) -> None:
    """Fix all unknowns from ``first`` on to zero in a lower banded system."""
    size = band.shape[1]
    for k in range(1, 6):
        band[k, max(0, first - k) : size] = np.where(
            np.arange(max(0, first - k), size) + k >= first, 0.0, band[k, max(0, first - k) : size]
        )
    band[0, first:] = 1.0
    right[first:] = 0.0


def _pairs(ends: FloatArray, h: FloatArray) -> FloatArray:
    """End states ``(N+1, 3, D)`` as the two ends of each segment, ``(N, 6, D)``."""
    grow = np.power.outer(h, [0.0, 1.0, 2.0])[:, :, None]
    return np.concatenate([ends[:-1] * grow, ends[1:] * grow], axis=1)


def smoothstep(x: FloatArray) -> FloatArray:
    """0 below 0, 1 above 1, with zero slope and curvature at both ends (Perlin's quintic)."""
    x = np.clip(x, 0.0, 1.0)
    return np.asarray(x**3 * (x * (6.0 * x - 15.0) + 10.0))
