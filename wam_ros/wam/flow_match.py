"""The training noise schedule: 1000 shifted flow-matching levels, their loss weights, noising.

``x_t = (1 - sigma) x + sigma noise``, velocity target ``noise - x`` (flow matching, Lipman et al.
2023), with the level shifted towards noise as in Wan: ``sigma = 5 s / (1 + 4 s)``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class TrainingSchedule:
    """Levels from pure noise to data, each array of length ``steps``, float32.

    ``timesteps`` are ``1000 sigma``; ``weights`` sum to ``steps`` and favour the middle levels.
    """

    sigmas: torch.Tensor
    timesteps: torch.Tensor
    weights: torch.Tensor


def training_schedule(steps: int = 1000, shift: float = 5.0) -> TrainingSchedule:
    """Build the schedule; the end point 0 is left out."""
    linear = torch.linspace(1.0, 0.0, steps + 1)[:-1]
    sigmas = shift * linear / (1 + (shift - 1) * linear)
    timesteps = sigmas * steps
    bell = torch.exp(-2 * ((timesteps - steps / 2) / steps) ** 2)
    bell = bell - bell.min()
    return TrainingSchedule(sigmas, timesteps, bell * (steps / bell.sum()))


def _level(values: torch.Tensor, index: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    level = values.to(like.device)[index]
    return level.reshape(*index.shape, *([1] * (like.ndim - index.ndim))).to(like.dtype)


def add_noise(
    schedule: TrainingSchedule, x: torch.Tensor, noise: torch.Tensor, index: torch.Tensor
) -> torch.Tensor:
    """Noise ``x`` to the levels ``index``.

    ``index`` holds rows of the schedule; its shape is that of the leading axes of ``x``.
    """
    sigma = _level(schedule.sigmas, index, x)
    return (1 - sigma) * x + sigma * noise


def velocity_target(x: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """What the model is trained to predict."""
    return noise - x
