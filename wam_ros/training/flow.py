"""Third stage: the transformer, by flow matching on video and actions with teacher forcing.

A window has 1 + K M latent frames and M blocks of actions, laid out by `windows`. Every block is
predicted from the clean frames before it, all in one forward (`mask.training_mask`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor, nn

from wam_ros.training.trainer import Losses
from wam_ros.training.windows import Window
from wam_ros.wam.dit import CausalDiT
from wam_ros.wam.flow_match import (
    TrainingSchedule,
    add_noise,
    training_schedule,
    velocity_target,
)
from wam_ros.wam.unipc import make_schedule

Draw = Callable[[np.random.Generator], "Batch"]
Condition = Callable[[Tensor, int], Tensor]
SCHEDULES = ("shared", "decoupled")


@dataclass(frozen=True)
class Batch:
    """Tensors of windows with the same number of blocks M.

    ``latents`` [B, z, 1 + K M, h, w]; ``actions`` [B, M rows, action_dim] and ``states``
    [B, M, state_dim], normalised; ``text`` [B, L, text_dim] and ``image`` [B, tokens, image_dim];
    ``opening`` [B, H, W, 3], uint8, is the composite that the window opens with.
    """

    latents: Tensor
    actions: Tensor
    states: Tensor
    text: Tensor
    image: Tensor
    opening: Tensor

    @classmethod
    def of(cls, windows: Sequence[Window]) -> Batch:
        """Stack windows of equal length."""
        return cls(
            *(
                torch.from_numpy(np.stack([getattr(w, f.name) for w in windows]))
                for f in fields(cls)
            )
        )


class TeacherForcing(nn.Module):
    """The transformer's training forward in one call, so that FSDP sees where it begins."""

    def __init__(self, dit: CausalDiT) -> None:
        super().__init__()
        self.dit = dit

    def forward(
        self,
        noisy: Tensor,
        clean: Tensor,
        y: Tensor | None,
        t: Tensor,
        action: Tensor,
        t_action: Tensor,
        state: Tensor,
        text: Tensor,
        image: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """See `CausalDiT.forward` with ``lean``; ``text`` and ``image`` are not projected yet."""
        context = self.dit.embed_context(text, image)
        out: tuple[Tensor, Tensor] = self.dit(
            noisy, clean, y, t, action, t_action, state, context, lean=True
        )
        return out


class FlowLoss:
    """Velocity error of a batch.

    Parameters
    ----------
    model
        The transformer, or `TeacherForcing` around it.
    draw
        Batch of a step.
    schedule
        ``shared``: a block's video and actions have one noise level, as in sampling without
        decoupling. ``decoupled``: the video's is ``(1 - Beta(alpha, 1)) 1000`` per block, each
        action's own is uniform (SPEC section 3.11).
    video_weight
        Weight of the video's loss; 0 leaves the video out: an action-only model of the same size,
        whose noisy video tokens are pure noise.
    condition
        Conditioning [B, 4 + z, F, h, w] of windows with F latents from their opening frames
        [B, H, W, 3], for a transformer that takes it.
    steps
        Numbers of sampling steps to train for: levels are drawn from those that samplers with so
        many steps visit, each sampler alike. None draws from all 1000 levels. A small network has
        enough to do with a few. Only for the schedule ``shared``.
    part
        Rank and number of ranks: each is given its share of every batch, noise included, so that
        the mean over ranks is what one alone would compute.
    """

    def __init__(
        self,
        model: CausalDiT | TeacherForcing,
        draw: Draw,
        schedule: str = "shared",
        video_weight: float = 0.3,
        alpha: float = 3.0,
        seed: int = 0,
        condition: Condition | None = None,
        part: tuple[int, int] = (0, 1),
        steps: Sequence[int] | None = None,
    ) -> None:
        if schedule not in SCHEDULES:
            raise ValueError(f"schedule '{schedule}' is not one of {', '.join(SCHEDULES)}")
        self._model = model if isinstance(model, TeacherForcing) else TeacherForcing(model)
        self._draw, self._schedule = draw, schedule
        self._video_weight, self._alpha, self._seed = video_weight, alpha, seed
        self._condition, self._part = condition, part
        if steps is not None and schedule != "shared":
            raise ValueError(f"schedule '{schedule}' draws from all levels, not from a sampler's")
        self._levels = training_schedule() if steps is None else sampler_levels(steps)

    def __call__(self, step: int) -> Losses:
        """Losses of step ``step``."""
        rng = np.random.default_rng((self._seed, step))
        batch = self._draw(rng)
        return self.of(batch, torch.Generator().manual_seed(int(rng.integers(2**62))))

    def of(self, b: Batch, generator: torch.Generator) -> Losses:
        """Losses of a batch with noise and levels drawn from ``generator``."""
        c, levels = self._model.dit.config, self._levels
        size, blocks, rows = len(b.latents), b.states.shape[1], c.num_action_per_block
        video_level, action_level = self._draw_levels(size, blocks, rows, generator)
        # The opening frame has a level of its own; it is never the context of anything.
        first = self._any((size, 1), generator)
        video_level = torch.cat(
            (first, video_level.repeat_interleave(c.num_frame_per_block, 1)), dim=1
        )
        noise_v = torch.randn(b.latents.shape, generator=generator)
        noise_a = torch.randn(b.actions.shape, generator=generator)
        by_frame = b.latents.transpose(1, 2)
        noisy = add_noise(levels, by_frame, noise_v.transpose(1, 2), video_level).transpose(1, 2)
        every_row = action_level.repeat_interleave(b.actions.shape[1] // action_level.shape[1], 1)
        actions = add_noise(levels, b.actions, noise_a, every_row)
        y = None
        if self._condition is not None:
            y = self._condition(self._mine(b.opening), b.latents.shape[2])
        video, action = self._model(
            self._mine(noisy),
            self._mine(b.latents),
            y if y is None else self._place(y),
            self._mine(levels.timesteps[video_level].long()),
            self._mine(actions),
            self._mine(levels.timesteps[action_level].long()),
            self._mine(b.states),
            self._mine(b.text),
            self._mine(b.image),
        )
        wanted_v = self._mine(velocity_target(b.latents, noise_v))
        wanted_a = self._mine(velocity_target(b.actions, noise_a))
        loss_a = (action.float() - wanted_a.float()).square().mean()
        loss_v = (video.float() - wanted_v[:, :, 1:].float()).square().mean()
        loss = loss_a + self._video_weight * loss_v
        return {"loss": loss, "action": loss_a.detach(), "video": loss_v.detach()}

    def _mine(self, whole: Tensor) -> Tensor:
        """This rank's share of a batch, where the model is."""
        rank, ranks = self._part
        share = len(whole) // ranks
        return self._place(whole[rank * share : (rank + 1) * share])

    def _place(self, x: Tensor) -> Tensor:
        like = next(self._model.parameters(), None)
        if like is None:
            return x
        return x.to(like.device, like.dtype if x.is_floating_point() else None)

    def _draw_levels(
        self, size: int, blocks: int, rows: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Rows of the levels for blocks [B, M] and actions; 0 is pure noise.

        Actions [B, M] where they share their block's level, [B, M rows] where each has its own.
        """
        if self._video_weight == 0.0:
            action = self._any((size, blocks), generator)
            return torch.zeros_like(action), action
        if self._schedule == "shared":
            level = self._any((size, blocks), generator)
            return level, level
        # eta ~ Beta(alpha, 1) is u^(1/alpha); the level's row is eta 1000 before the end.
        eta = torch.rand(size, blocks, generator=generator) ** (1.0 / self._alpha)
        video = ((1.0 - eta) * 1000).long().clamp_max(999)
        return video, self._any((size, blocks * rows), generator)

    def _any(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        return torch.randint(len(self._levels.sigmas), shape, generator=generator)


def sampler_levels(steps: Sequence[int], shift: float = 5.0) -> TrainingSchedule:
    """Levels that samplers with ``steps`` steps visit, each sampler's equally often.

    >>> sampler_levels([1, 2]).timesteps.tolist()
    [999.0, 999.0, 999.0, 833.0]
    """
    often = math.lcm(*steps)
    sigmas, times = [], []
    for n in steps:
        found = make_schedule(n, shift)
        sigmas += [found.sigmas[:-1]] * (often // n)
        times += list(found.timesteps) * (often // n)
    every = torch.cat(sigmas)
    return TrainingSchedule(every, torch.tensor(times, dtype=torch.float32), torch.ones_like(every))
