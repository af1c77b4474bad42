"""UniPC sampling of a flow-matching model: order 2, B(h) = expm1, x0 prediction.

Zhao et al. 2023, "UniPC: A Unified Predictor-Corrector Framework", in the form DreamZero samples
with: levels from 0.999 to 0 shifted by 5, integer timesteps by truncation, first order in the last
step. Coefficients are 0-dim float32 tensors and the samples keep their own precision, so that in
bfloat16 every product is rounded where the reference rounds it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

# 0.999 as float32 holds it, which moves some levels by one unit in the last place.
_FIRST_LEVEL = float(np.float32(0.999))


@dataclass(frozen=True)
class Schedule:
    """``sigmas`` [N+1] float32 on the CPU and integer ``timesteps`` of the N steps."""

    sigmas: torch.Tensor
    timesteps: tuple[int, ...]


def make_schedule(steps: int, shift: float = 5.0, final_noise: float = 0.0) -> Schedule:
    """Levels of ``steps`` steps; with ``final_noise`` f rescaled to end at f instead of 0.

    Raises
    ------
    ValueError
        For less than one step or a final noise outside [0, 1).
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}; sampling needs at least one")
    if not 0.0 <= final_noise < 1.0:
        raise ValueError(f"final_noise is {final_noise}, expected 0 <= f < 1")
    linear = np.linspace(_FIRST_LEVEL, 0.0, steps + 1)[:-1]
    levels = shift * linear / (1 + (shift - 1) * linear)
    timesteps = tuple(int(t) for t in levels * 1000)
    sigmas = torch.from_numpy(np.append(levels, 0.0).astype(np.float32))
    if final_noise > 0.0:
        first = float(sigmas[0])
        sigmas = sigmas * (first - final_noise) / first + final_noise
        timesteps = tuple(int(t) for t in (sigmas[:-1] * 1000).tolist())
    return Schedule(sigmas, timesteps)


@dataclass(frozen=True)
class _Predictor:
    """x_t = sample * x + model * m0 + slope * P, with P = half ((m1 - m0) / ratio)."""

    order: int
    sample: torch.Tensor
    model: torch.Tensor
    slope: torch.Tensor
    ratio: torch.Tensor | None


@dataclass(frozen=True)
class _Corrector:
    """The same base plus ``rho`` weighting the old slope and the newly seen difference."""

    sample: torch.Tensor
    model: torch.Tensor
    slope: torch.Tensor
    ratio: torch.Tensor | None
    rho: torch.Tensor


def _log_snr(sigma: torch.Tensor) -> torch.Tensor:
    return torch.log(1 - sigma) - torch.log(sigma)


def _base(sigma_t: torch.Tensor, sigma_s: torch.Tensor) -> tuple[torch.Tensor, ...]:
    h = _log_snr(sigma_t) - _log_snr(sigma_s)
    phi = torch.expm1(-h)
    alpha = 1 - sigma_t
    return h, sigma_t / sigma_s, alpha * phi, alpha * phi


class UniPC:
    """One sampling run over a `Schedule`; call `step` once per level, `reset` to start again."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        n = len(schedule.timesteps)
        orders = [min(2, n - i, i + 1) for i in range(n)]
        self._predictors = [self._predictor(i, orders[i]) for i in range(n)]
        # The corrector of step i mends the prediction made at step i - 1, at that one's order.
        self._correctors = [self._corrector(i, orders[i - 1]) for i in range(1, n)]
        self.reset()

    def reset(self) -> None:
        """Forget the run."""
        self._i = 0
        self._m0: torch.Tensor | None = None
        self._m1: torch.Tensor | None = None
        self._corrected: torch.Tensor | None = None

    def _ratio(self, older: int, newer: int, h: torch.Tensor) -> torch.Tensor:
        s = self.schedule.sigmas
        return (_log_snr(s[older]) - _log_snr(s[newer])) / h

    def _predictor(self, i: int, order: int) -> _Predictor:
        s = self.schedule.sigmas
        h, sample, model, slope = _base(s[i + 1], s[i])
        ratio = self._ratio(i - 1, i, h) if order == 2 else None
        return _Predictor(order, sample, model, slope, ratio)

    def _corrector(self, i: int, order: int) -> _Corrector:
        s = self.schedule.sigmas
        h, sample, model, slope = _base(s[i], s[i - 1])
        if order == 1:
            return _Corrector(sample, model, slope, None, torch.tensor([0.5]))
        ratio = self._ratio(i - 2, i - 1, h)
        hh = -h
        b = torch.expm1(hh)
        phi2 = b / hh - 1
        phi3 = phi2 / hh - 0.5
        one = torch.ones_like(ratio)
        matrix = torch.stack([torch.stack([one, one]), torch.stack([ratio, one])])
        rho = torch.linalg.solve(matrix, torch.stack([phi2 / b, phi3 * 2 / b]))
        return _Corrector(sample, model, slope, ratio, rho)

    def step(self, velocity: torch.Tensor, sample: torch.Tensor) -> torch.Tensor:
        """Advance one level.

        Parameters
        ----------
        velocity
            Model output at ``sample``, same shape.
        sample
            What the last `step` returned (at first: the noise).

        Raises
        ------
        RuntimeError
            When the schedule has been used up.
        """
        i = self._i
        if i >= len(self._predictors):
            raise RuntimeError(f"all {i} steps are done; call reset() before another run")
        m = sample - self.schedule.sigmas[i] * velocity
        if i > 0:
            sample = self._correct(self._correctors[i - 1], m)
        self._m1, self._m0 = self._m0, m
        self._corrected = sample
        self._i = i + 1
        return self._predict(self._predictors[i], sample)

    def _correct(self, c: _Corrector, m: torch.Tensor) -> torch.Tensor:
        last, m0 = self._corrected, self._m0
        assert last is not None and m0 is not None
        rho = c.rho.to(m.dtype)
        base = c.sample * last - c.model * m0
        slope = rho[-1] * (m - m0)
        if c.ratio is not None:
            assert self._m1 is not None
            slope = rho[0] * ((self._m1 - m0) / c.ratio) + slope
        return base - c.slope * slope

    def _predict(self, p: _Predictor, sample: torch.Tensor) -> torch.Tensor:
        m0 = self._m0
        assert m0 is not None
        x = p.sample * sample - p.model * m0
        if p.ratio is not None:
            assert self._m1 is not None
            x = x - p.slope * (0.5 * ((self._m1 - m0) / p.ratio))
        return x
