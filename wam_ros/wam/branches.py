"""Run the conditional and the unconditional forward of classifier-free guidance.

The policy head asks a `Branches` for predictions and combines them itself, so that who computes
them (one GPU in turn, one GPU in a batch, two ranks) is nobody else's business.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch

from wam_ros.wam.cache import Cache, StaticCache
from wam_ros.wam.dit import CausalDiT, Context
from wam_ros.wam.savings import Savings

Embedding = Callable[[], torch.Tensor]


@dataclass(frozen=True)
class Prefill:
    """Observed latents to append: see `CausalDiT.prefill`."""

    x: torch.Tensor
    y: torch.Tensor | None
    t: torch.Tensor
    start_frame: int


@dataclass(frozen=True)
class Step:
    """Inputs of a denoising forward: see `CausalDiT.denoise`."""

    x: torch.Tensor
    y: torch.Tensor | None
    t: torch.Tensor
    action: torch.Tensor
    t_action: torch.Tensor
    state: torch.Tensor
    start_frame: int


@dataclass(frozen=True)
class Velocities:
    """Predictions of a step; None where they were not asked for. Actions are conditional only."""

    video: torch.Tensor | None
    video_uncond: torch.Tensor | None
    action: torch.Tensor


class Branches(Protocol):
    """What the policy head needs."""

    forwards: tuple[int, int]
    """Conditional and unconditional forwards since the last `reset_counts`."""

    def reset_counts(self) -> None:
        """Set ``forwards`` to zero."""

    def condition(
        self, key: object, prompt: Embedding, negative: Embedding, clip: torch.Tensor
    ) -> None:
        """Set prompts [B, text_len, text_dim] and image features [B, 257, dim] of the next calls.

        With an equal ``key`` nothing has changed since the last time. The prompts are functions
        because a branch that never runs needs no embedding.
        """

    def reset(self) -> None:
        """Empty the caches: a window starts."""

    def prefill(self, prefill: Prefill, need_uncond: bool) -> None:
        """Append observed latents; ``need_uncond`` says that this call will need that branch."""

    def denoise(self, step: Step, need_uncond: bool, need_video: bool) -> Velocities:
        """Predict; without ``need_video`` (nor ``need_uncond``) only the action matters."""

    def past(self, layer: int, uncond: bool = False) -> torch.Tensor:
        """A branch's cached keys and values, for inspection."""

    @property
    def cached_tokens(self) -> int:
        """Tokens in the conditional cache."""


class LocalBranches:
    """Both branches on one device, in turn or as a batch of two."""

    def __init__(self, dit: CausalDiT, savings: Savings, batch: int = 1) -> None:
        self.dit, self.savings, self.batch = dit, savings, batch
        self.forwards = (0, 0)
        self._both: StaticCache | None = None
        self._cond: Cache
        self._uncond: Cache
        if savings.batched_cfg:
            self._both = dit.static_cache(2 * batch)
            self._cond = self._both.rows(slice(0, batch))
            self._uncond = self._both.rows(slice(batch, 2 * batch))
        elif savings.static_cache:
            self._cond, self._uncond = dit.static_cache(batch), dit.static_cache(batch)
        else:
            self._cond, self._uncond = dit.growing_cache(), dit.growing_cache()
        # Unconditional prefills that nothing has needed yet.
        self._waiting: list[Prefill] = []
        self._key: object = None
        self._embeddings: tuple[Embedding, Embedding, torch.Tensor] | None = None
        self._contexts: dict[str, Context] = {}

    @property
    def cached_tokens(self) -> int:
        """See `Branches.cached_tokens`."""
        return self._cond.length

    def reset_counts(self) -> None:
        """See `Branches.reset_counts`."""
        self.forwards = (0, 0)

    def _count(self, cond: int, uncond: int) -> None:
        self.forwards = (self.forwards[0] + cond, self.forwards[1] + uncond)

    def condition(
        self, key: object, prompt: Embedding, negative: Embedding, clip: torch.Tensor
    ) -> None:
        """See `Branches.condition`."""
        if self.savings.cache_context and key == self._key and self._embeddings is not None:
            return
        self._key = key
        self._embeddings = (prompt, negative, clip)
        self._contexts.clear()

    def _context(self, which: str) -> Context:
        """Context of ``cond``, ``uncond`` or ``both`` (their batch)."""
        if which in self._contexts:
            return self._contexts[which]
        if self._embeddings is None:
            raise RuntimeError("no prompt yet: call condition() first")
        prompt, negative, clip = self._embeddings
        if which != "both" and "both" in self._contexts:
            rows = slice(0, self.batch) if which == "cond" else slice(self.batch, None)
            context = self._contexts[which] = self._contexts["both"].rows(rows)
            return context
        if which == "both":
            text = torch.cat((prompt(), negative()))
            clip = torch.cat((clip, clip))
        else:
            text = prompt() if which == "cond" else negative()
        context = self.dit.embed_context(text, clip)
        if self.savings.cache_context:
            context = self._contexts[which] = self.dit.with_keys(context)
        return context

    def reset(self) -> None:
        """See `Branches.reset`."""
        self._waiting.clear()
        self._cond.clear()
        self._uncond.clear()

    def _prefill(self, which: str, cache: Cache, p: Prefill) -> None:
        context = self._context(which)
        want = not self.savings.dead_outputs
        self.dit.prefill(p.x, p.y, p.t, p.start_frame, context, cache, want_output=want)

    def _catch_up(self) -> None:
        for waiting in self._waiting:
            self._prefill("uncond", self._uncond, waiting)
            self._count(0, 1)
        self._waiting.clear()

    def prefill(self, prefill: Prefill, need_uncond: bool) -> None:
        """See `Branches.prefill`."""
        if self.savings.dead_uncond and not need_uncond:
            self._waiting.append(prefill)
            self._prefill("cond", self._cond, prefill)
            self._count(1, 0)
            return
        self._catch_up()
        if self._both is None:
            self._prefill("cond", self._cond, prefill)
            self._prefill("uncond", self._uncond, prefill)
        else:
            double = Prefill(
                _twice(prefill.x), _twice(prefill.y), _twice(prefill.t), prefill.start_frame
            )
            self._both.length = self._cond.length
            self._prefill("both", self._both, double)
            self._cond.length = self._uncond.length = self._both.length
        self._count(1, 1)

    def _denoise(
        self, which: str, cache: Cache, s: Step, video: bool
    ) -> tuple[torch.Tensor | None, torch.Tensor]:
        inputs = (s.x, s.y, s.t, s.action, s.t_action, s.state, s.start_frame)
        return self.dit.denoise(*inputs, self._context(which), cache, want_video=video)

    def denoise(self, step: Step, need_uncond: bool, need_video: bool) -> Velocities:
        """See `Branches.denoise`."""
        video = need_video or not self.savings.dead_outputs
        if self.savings.dead_uncond and not need_uncond:
            self._count(1, 0)
            velocity, action = self._denoise("cond", self._cond, step, video)
            return Velocities(velocity, None, action)
        self._catch_up()
        self._count(1, 1)
        if self._both is None:
            velocity, action = self._denoise("cond", self._cond, step, video)
            uncond, _ = self._denoise("uncond", self._uncond, step, video)
            return Velocities(velocity, uncond, action)
        self._both.length = self._cond.length
        double = Step(
            _twice(step.x),
            _twice(step.y),
            _twice(step.t),
            _twice(step.action),
            _twice(step.t_action),
            _twice(step.state),
            step.start_frame,
        )
        velocity, action = self._denoise("both", self._both, double, video)
        action = action[: self.batch]
        if velocity is None:
            return Velocities(None, None, action)
        return Velocities(velocity[: self.batch], velocity[self.batch :], action)

    def past(self, layer: int, uncond: bool = False) -> torch.Tensor:
        """See `Branches.past`; runs unconditional prefills that still wait."""
        if uncond:
            self._catch_up()
        return (self._uncond if uncond else self._cond).past(layer)


def _twice(x: torch.Tensor | None) -> torch.Tensor:
    """Repeat along the batch, for both branches; None stays None."""
    return x if x is None else torch.cat((x, x))  # type: ignore[return-value]
