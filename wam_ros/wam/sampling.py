"""Schedules of a call, which of its steps run, and guidance."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from wam_ros.wam.call import CallOptions
from wam_ros.wam.config import HeadConfig
from wam_ros.wam.skipping import DynamicSkip, StaticSkip
from wam_ros.wam.unipc import UniPC, make_schedule


@dataclass(frozen=True)
class Schedules:
    """Samplers of video and actions, and their timesteps on the device."""

    video: UniPC
    action: UniPC
    t_video: torch.Tensor
    t_action: torch.Tensor

    @staticmethod
    def of(config: HeadConfig, options: CallOptions, device: torch.device) -> Schedules:
        """Schedules of calls with these ``options``; timesteps [steps] per kind."""
        video = make_schedule(options.steps, config.sigma_shift, options.final_noise)
        action = make_schedule(options.steps, config.sigma_shift)
        t = [torch.tensor(s.timesteps, device=device) for s in (video, action)]
        return Schedules(UniPC(video), UniPC(action), *t)


def skip_rule(options: CallOptions) -> StaticSkip | DynamicSkip:
    """The rule by which a call skips steps."""
    if options.dynamic:
        return DynamicSkip(options.steps)
    return StaticSkip(options.steps, options.dit_steps)


def guide(
    cond: torch.Tensor | None, uncond: torch.Tensor | None, scale: float
) -> torch.Tensor | None:
    """Classifier-free guidance; without an unconditional prediction nothing reads the result."""
    if cond is None or uncond is None:
        return cond
    return uncond + scale * (cond - uncond)
