"""Damped least squares inverse kinematics with joint limits; see `Kinematics.ik`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from wam_ros.contract.kinematics import Kinematics

Array = NDArray[np.float64]


@dataclass(frozen=True)
class IkResult:
    """Outcome of `Kinematics.ik`.

    Attributes
    ----------
    q : dict
        The whole configuration: ``q0`` with the solved joints replaced, rad or m.
    position_error : float
        Remaining distance to the target, m.
    rotation_error : float
        Remaining angle to the target, rad; 0 when no rotation was asked for.
    converged : bool
        Both errors are inside the tolerances.
    """

    q: dict[str, float]
    position_error: float
    rotation_error: float
    converged: bool


def rotation_vector(rotation: Array) -> Array:
    """Axis times angle (3,), rad, of a rotation (3, 3); the angle is in 0..pi."""
    skew = np.array(
        [
            rotation[2, 1] - rotation[1, 2],
            rotation[0, 2] - rotation[2, 0],
            rotation[1, 0] - rotation[0, 1],
        ]
    )
    sine = 0.5 * float(np.linalg.norm(skew))
    cosine = 0.5 * (float(np.trace(rotation)) - 1.0)
    angle = math.atan2(sine, cosine)
    if sine > 1e-7:
        return skew * (angle / (2.0 * sine))
    if cosine > 0.0:
        return 0.5 * skew
    # Half a turn: the skew part vanishes, the axis is the eigenvector for eigenvalue 1.
    values, vectors = np.linalg.eigh(0.5 * (rotation + rotation.T))
    return vectors[:, int(np.argmax(values))] * angle


def solve(
    model: Kinematics,
    link: str,
    target: Array,
    rotation: Array | None,
    q: dict[str, float],
    joints: list[str],
    limits: dict[str, tuple[float, float]],
    weights: tuple[float, float, float],
    iterations: int,
    tolerances: tuple[float, float],
    restarts: int,
) -> IkResult:
    """Do the work of `Kinematics.ik`, which documents the arguments.

    ``weights`` are (rotation, m/rad; rest; damping), ``tolerances`` (m, rad).
    """
    model.jacobian(q, link, joints)  # reports unknown names before any work
    bounds = [limits.get(j, (model.joints[j].lower, model.joints[j].upper)) for j in joints]
    lower, upper = (np.array(side, dtype=float) for side in zip(*bounds, strict=True))
    rest = np.clip(np.array([q.get(j, 0.0) for j in joints], dtype=float), lower, upper)
    problem = (model, link, target, rotation, joints, (lower, upper), rest, weights, tolerances)
    best = _descend(*problem, iterations=iterations, q=dict(q), x=rest)
    rng = np.random.default_rng(0)  # the same call always gives the same answer
    low, high = np.maximum(lower, -math.pi), np.minimum(upper, math.pi)
    for _ in range(restarts):
        if best.converged:
            break
        start = np.clip(rng.uniform(low, np.maximum(low, high)), lower, upper)
        other = _descend(*problem, iterations=iterations, q=dict(q), x=start)
        if other.converged or _cost(other, weights) < _cost(best, weights):
            best = other
    return best


def _cost(result: IkResult, weights: tuple[float, float, float]) -> float:
    return math.hypot(result.position_error, weights[0] * result.rotation_error)


def _descend(
    model: Kinematics,
    link: str,
    target: Array,
    rotation: Array | None,
    joints: list[str],
    bounds: tuple[Array, Array],
    rest: Array,
    weights: tuple[float, float, float],
    tolerances: tuple[float, float],
    *,
    iterations: int,
    q: dict[str, float],
    x: Array,
) -> IkResult:
    """One descent from ``x`` (N,), pulled to ``rest`` (N,) where the task leaves freedom."""
    rotation_weight, rest_weight, damping = weights
    rows = 3 if rotation is None else 6
    best: tuple[float, Array, float, float] | None = None
    for _ in range(iterations + 1):
        q.update(zip(joints, x.tolist(), strict=True))
        pose = model.fk(q, link)
        error = np.zeros(rows)
        error[:3] = target - pose[:3, 3]
        turn = np.zeros(3)
        if rotation is not None:
            turn = rotation_vector(rotation @ pose[:3, :3].T)
            error[3:] = rotation_weight * turn
        distance, angle = float(np.linalg.norm(error[:3])), float(np.linalg.norm(turn))
        cost = float(np.linalg.norm(error))
        done = distance < tolerances[0] and angle < tolerances[1]
        if done or best is None or cost < best[0]:
            best = (cost, x.copy(), distance, angle)
        if done:
            break
        jac = model.jacobian(q, link, joints)[:rows]
        jac[3:] *= rotation_weight
        step = _step(jac, error, rest - x, x, bounds, rest_weight, damping)
        x = np.clip(x + step, bounds[0], bounds[1])
    assert best is not None
    _, x, distance, angle = best
    q.update(zip(joints, x.tolist(), strict=True))
    return IkResult(q, distance, angle, distance < tolerances[0] and angle < tolerances[1])


def _step(
    jac: Array,
    error: Array,
    to_rest: Array,
    x: Array,
    bounds: tuple[Array, Array],
    rest_weight: float,
    damping: float,
) -> Array:
    """One damped step (N,), leaving out joints that would only push on their limit."""
    # Fade the damping with the error, or the last millimetres would take many steps.
    damp = damping**2 * min(1.0, float(np.linalg.norm(error)) / 0.1) + 1e-8
    free = np.ones(x.size, dtype=bool)
    step = np.zeros(x.size)
    for _ in range(x.size):
        part = jac[:, free]
        inverse = part.T @ np.linalg.inv(part @ part.T + damp * np.eye(part.shape[0]))
        pull = rest_weight * to_rest[free]
        step = np.zeros(x.size)
        step[free] = inverse @ error + pull - inverse @ (part @ pull)
        stuck = free & (((x <= bounds[0]) & (step < -1e-12)) | ((x >= bounds[1]) & (step > 1e-12)))
        if not stuck.any():
            break
        free &= ~stuck
    largest = float(np.max(np.abs(step), initial=0.0))
    return step * min(1.0, 0.3 / largest) if largest > 0.0 else step
