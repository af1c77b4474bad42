"""The policy head: one call turns what the robot saw and its state into a chunk of actions.

The order of work is the reference's: embed the prompts; start a window over where a reset rule says
so; append the observed latents to the cache; denoise video and actions together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import cast

import torch
from torch import nn

from wam_ros.wam.branches import Branches, LocalBranches, Prefill, Step
from wam_ros.wam.call import CallOptions, CallResult, NoiseFn, Tokens, seeded_noise
from wam_ros.wam.conditioning import (
    StagedClip,
    Vae,
    WindowConditioning,
    check_images,
    clip_schedule,
    observed_latents,
    reference_frame,
    to_video,
)
from wam_ros.wam.config import WamConfig
from wam_ros.wam.dit import CausalDiT
from wam_ros.wam.rope import RotationTables
from wam_ros.wam.sampling import Schedules, guide, skip_rule
from wam_ros.wam.savings import Savings
from wam_ros.wam.skipping import DynamicSkip, StaticSkip
from wam_ros.wam.stages import Stopwatch

# Prompt embeddings to keep; one of the 14B is 4 MB.
_PROMPTS = 32


def apply_savings(dit: CausalDiT, savings: Savings) -> None:
    """Put the transformer's own switches into effect; load its weights first."""
    dit.rotations = RotationTables(dit.config.head_dim, real=savings.real_rope)
    for block in dit.blocks:
        if savings.fused_qkv:
            block.self_attn.fuse()
        else:
            block.self_attn.split()


class PolicyHead:
    """The model with the state it carries from call to call. One session at a time.

    Parameters
    ----------
    dit
        The transformer; its device and precision are the head's.
    text, image, vae
        Encoders: ``text(ids, mask)`` [B, L, text_dim] with zeroed padding, ``image.encode(frames)``
        [B, 257, image_dim] of frames [B, 3, H, W] in [-1, 1], and a `conditioning.Vae`.
    negative
        Token ids and mask [1, L] of the negative prompt.
    branches
        Who runs the forwards; local ones by default.
    synchronize
        Wait for the GPU around each stage, to measure it.
    """

    def __init__(
        self,
        config: WamConfig,
        dit: CausalDiT,
        text: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        image: nn.Module,
        vae: Vae,
        negative: Tokens,
        savings: Savings | None = None,
        branches: Branches | None = None,
        noise: NoiseFn | None = None,
        synchronize: bool = False,
    ) -> None:
        self.config, self.dit, self.vae = config, dit, vae
        self.savings = Savings.none() if savings is None else savings
        apply_savings(dit, self.savings)
        self._text, self._image, self._negative = text, image, negative
        self.branches: Branches = branches or LocalBranches(dit, self.savings)
        self._noise = noise or seeded_noise(config.head.noise_seed)
        self._synchronize = synchronize
        self._embedded: dict[bytes, torch.Tensor] = {}
        self._schedules: dict[tuple[int, float], Schedules] = {}
        # Counts windows for good: what is kept for one must never pass for another's.
        self._window = 0
        self.restart()

    @property
    def device(self) -> torch.device:
        """Where the transformer lives."""
        return self.dit.patch_embedding.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of activations."""
        return self.dit.patch_embedding.weight.dtype

    def restart(self) -> None:
        """Forget prompt and window; the next call starts over."""
        self.next_frame = 0
        self._language: torch.Tensor | None = None
        self._clip: torch.Tensor | None = None
        self._conditioning: WindowConditioning | None = None

    # ------------------------------------------------------------------ pieces

    def _embed(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        key = ids.cpu().numpy().tobytes() + mask.cpu().numpy().tobytes()
        if self.savings.cache_context and key in self._embedded:
            return self._embedded[key]
        with torch.no_grad():
            embedding = self._text(ids.to(self.device), mask.to(self.device)).to(self.dtype)
        if self.savings.cache_context:
            if len(self._embedded) >= _PROMPTS:
                self._embedded.pop(next(iter(self._embedded)))
            self._embedded[key] = embedding
        return embedding

    def will_reset(self, ids: torch.Tensor, frames: int) -> str:
        """Why a call with these tokens and number of frames would start a window over, or ''."""
        limit = self.dit.config.local_attn_size
        if self._language is None:
            return "first call"
        if self._language.shape != ids.shape or not torch.equal(self._language, ids.cpu()):
            return "new instruction"
        if frames == 1:
            return "single frame"
        if self.next_frame == 0:
            return "restart"
        if self.next_frame >= limit:
            return "window full"
        return ""

    def prepare(self, images: torch.Tensor) -> torch.Tensor:
        """Composites uint8 [B, T, H, W, 3] as video [B, 3, T, H, W] in the model's size."""
        h = self.config.head
        size = (h.video_height, h.video_width)
        return to_video(images, size, self.dtype, self.device, h.resize_input)

    def stage(self, frames: int) -> StagedClip:
        """Start encoding an observation of ``frames`` frames as they arrive (see `prepare`)."""
        return StagedClip(self.vae, frames, self.dit.config.num_frame_per_block)

    def finish_conditioning(self, latents: int = 1) -> int:
        """Encode up to ``latents`` conditioning latents in idle time; returns how many remain."""
        if self._conditioning is None:
            return 0
        with torch.no_grad():
            self._conditioning.finish(latents)
        return self._conditioning.pending

    def decode(self, video: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        """Decode imagined latents to frames [B, 3, 4 K, H, W] in [-1, 1].

        ``before`` [B, z, n, h, w] are the observed latents they continue (`CallResult.observed`);
        the decoder is causal and starts from them.
        """
        return torch.cat(list(self.decode_parts(video, before)), dim=2)

    def decode_parts(self, video: torch.Tensor, before: torch.Tensor) -> Iterator[torch.Tensor]:
        """The same, latent by latent: K times [B, 3, 4, H, W]. Safe beside a running call."""
        k = self.dit.config.num_frame_per_block
        latents = torch.cat((before, video[:, :, -k:]), dim=2)
        parts = iter(self.vae.decode_parts(latents))
        for i in range(latents.shape[2]):
            with torch.no_grad():  # not around the yield, where it would reach into the caller
                part = next(parts)
            if i >= latents.shape[2] - k:
                yield part

    # ------------------------------------------------------------------ a call

    @torch.no_grad()
    def call(
        self,
        images: torch.Tensor,
        ids: torch.Tensor,
        mask: torch.Tensor,
        state: torch.Tensor,
        options: CallOptions | None = None,
        *,
        noise_video: torch.Tensor | None = None,
        noise_action: torch.Tensor | None = None,
        staged: torch.Tensor | None = None,
    ) -> CallResult:
        """Return the next chunk.

        Parameters
        ----------
        images
            Composites since the last call, uint8 [B, T, H, W, 3]; T = 1 starts a window.
        ids, mask
            Prompt tokens [B, text_len].
        state
            Normalised and padded, [B, states, max_state_dim].
        noise_video, noise_action
            Noise [B, z, K, h, w] and [B, actions, action_dim] to start from, instead of drawn.
        staged
            The block's latents if `stage` has encoded them already; ignored at a reset.

        Raises
        ------
        ValueError
            For inputs of the wrong shape, or a number of frames without a rule. Nothing has moved
            then; after any other error the next call starts a window.
        """
        self._check(images, ids, mask, state, noise_video, noise_action)
        options = options or CallOptions.of(self.config.head)
        watch = Stopwatch(self.device, self._synchronize)
        reset = self.will_reset(ids, images.shape[1])
        if not reset and staged is None:
            clip_schedule(images.shape[1], self.dit.config.num_frame_per_block)
        skip = skip_rule(options)
        need_uncond = self._needs_uncond(0, skip, options)
        try:
            observed = self._observe(images, ids, mask, reset, staged, watch)
            prefills = self._append(observed, ids, mask, bool(reset), need_uncond, watch)
            noise = self._draw(state.shape[0], noise_video, noise_action)
            with watch.stage("denoise"):
                video, action, timesteps = self._denoise(noise, state, skip, options)
        except BaseException:
            # The cache may hold half of this call: only a new window is certain to be right.
            self.restart()
            raise
        start = self.next_frame
        self.next_frame += self.dit.config.num_frame_per_block
        if video is not None and reset:
            video = torch.cat((observed, video), dim=2)
        return CallResult(
            action,
            video,
            observed,
            reset,
            start,
            self.next_frame,
            timesteps,
            prefills,
            self.branches.forwards,
            self.branches.cached_tokens,
            watch.seconds,
        )

    @torch.no_grad()
    def open_window(
        self, image: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor
    ) -> dict[str, float]:
        """Start a window at a past frame without asking for actions.

        Leaves the head as a first call on ``image`` [B, 1, H, W, 3] would, minus the denoising, so
        that the next `call` appends a block. Returns the seconds per stage.
        """
        self._check(image, ids, mask)
        watch = Stopwatch(self.device, self._synchronize)
        try:
            observed = self._observe(image, ids, mask, "opened", None, watch)
            self._append(observed, ids, mask, True, False, watch)
        except BaseException:
            self.restart()
            raise
        self.next_frame += self.dit.config.num_frame_per_block
        return watch.seconds

    def _append(
        self,
        observed: torch.Tensor,
        ids: torch.Tensor,
        mask: torch.Tensor,
        reset: bool,
        need_uncond: bool,
        watch: Stopwatch,
    ) -> tuple[int, int]:
        """Embed the prompts and put the observed latents into the caches; counts the forwards."""
        if reset:
            self.next_frame = 0
            self._language = ids.cpu().clone()
        self.branches.reset_counts()
        with watch.stage("text"):
            self._condition(ids, mask)
        with watch.stage("prefill"):
            self._prefill(observed, reset, need_uncond)
        forwards = self.branches.forwards
        self.branches.reset_counts()
        return forwards

    def _check(
        self,
        images: torch.Tensor,
        ids: torch.Tensor,
        mask: torch.Tensor,
        state: torch.Tensor | None = None,
        noise_video: torch.Tensor | None = None,
        noise_action: torch.Tensor | None = None,
    ) -> None:
        c, h = self.dit.config, self.config.head
        check_images(images, None if h.resize_input else (h.video_height, h.video_width))
        batch = images.shape[0]
        states = (c.num_state_per_block, c.max_state_dim)
        video = (c.out_dim, c.num_frame_per_block, *self.config.latent_size)
        expected = {
            "ids": (ids, (c.text_len,), "tokenise to that length"),
            "mask": (mask, (c.text_len,), "one entry per token"),
            "state": (state, states, "pad the state vector with zeros"),
            "noise_video": (noise_video, video, "one block of latents"),
            "noise_action": (noise_action, (c.num_action_per_block, c.action_dim), "one block"),
        }
        for name, (tensor, shape, hint) in expected.items():
            if tensor is None:
                continue
            if tuple(tensor.shape[1:]) != shape:
                wanted = ", ".join(map(str, shape))
                raise ValueError(
                    f"{name}: shape {tuple(tensor.shape)}, expected [B, {wanted}] ({hint})"
                )
            if tensor.shape[0] != batch:
                raise ValueError(f"{name}: batch of {tensor.shape[0]}, images have {batch}")

    def _observe(
        self,
        images: torch.Tensor,
        ids: torch.Tensor,
        mask: torch.Tensor,
        reset: str,
        staged: torch.Tensor | None,
        watch: Stopwatch,
    ) -> torch.Tensor:
        """Latents to append in this call; a reset also renews the conditioning."""
        k = self.dit.config.num_frame_per_block
        if staged is not None and not reset:
            return staged
        with watch.stage("vae"):
            video = self.prepare(images)
            if not reset:
                return observed_latents(self.vae, video, k)
            frame = reference_frame(video)
            concat = self.dit.config.concat_first_frame_latent
            latents = self.config.window_latents
            lazy = self.savings.lazy_conditioning
            self._conditioning = WindowConditioning(self.vae, frame, latents, concat, lazy)
        with watch.stage("image"):
            self._clip = self._look(frame[:, :, 0], ids, mask).to(self.dtype)
        self._window += 1
        return self._conditioning.first_latent

    def _look(self, frame: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        if getattr(self._image, "grounded", False):
            return cast(torch.Tensor, self._image.encode(frame, self._embed(ids, mask)))
        return cast(torch.Tensor, self._image.encode(frame))

    def _condition(self, ids: torch.Tensor, mask: torch.Tensor) -> None:
        assert self._clip is not None
        if self.savings.cache_context:
            key = (self._window, ids.cpu().numpy().tobytes())
            self.branches.condition(
                key,
                lambda: self._embed(ids, mask),
                lambda: self._embed(*self._negative),
                self._clip,
            )
            return
        prompt, negative = self._embed(ids, mask), self._embed(*self._negative)
        self.branches.condition(None, lambda: prompt, lambda: negative, self._clip)

    def _prefill(self, x: torch.Tensor, reset: bool, need_uncond: bool) -> None:
        assert self._conditioning is not None
        batch, _, frames = x.shape[:3]
        if reset:
            self.branches.reset()
            start = 0
        else:
            start = self.next_frame - frames
        rows = 1 if self.savings.shared_time else frames
        t = torch.zeros(batch, rows, dtype=torch.long, device=self.device)
        y = self._conditioning.y(start, frames)
        self.branches.prefill(Prefill(x, y, t, start), need_uncond)
        if reset:
            self.next_frame = 1

    def _draw(
        self, batch: int, video: torch.Tensor | None, action: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        c = self.dit.config
        where = (self.dtype, self.device)
        if video is None:
            shape = (batch, c.out_dim, c.num_frame_per_block, *self.config.latent_size)
            video = self._noise(shape, *where)
        if action is None:
            action = self._noise((batch, c.num_action_per_block, c.action_dim), *where)
        return video.to(self.device, self.dtype), action.to(self.device, self.dtype)

    def _needs_video(self, step: int, skip: StaticSkip | DynamicSkip, o: CallOptions) -> bool:
        return o.want_video or not skip.is_last(step)

    def _needs_uncond(self, step: int, skip: StaticSkip | DynamicSkip, o: CallOptions) -> bool:
        # A scale of one is the conditional prediction alone.
        return o.guidance != 1.0 and self._needs_video(step, skip, o)

    def _denoise(
        self,
        noise: tuple[torch.Tensor, torch.Tensor],
        state: torch.Tensor,
        skip: StaticSkip | DynamicSkip,
        options: CallOptions,
    ) -> tuple[torch.Tensor | None, torch.Tensor, tuple[int, ...]]:
        assert self._conditioning is not None
        video, action = noise
        batch, frames, rows = video.shape[0], video.shape[2], action.shape[1]
        start = self.next_frame
        y = self._conditioning.y(start, frames)
        state = state.to(self.device, self.dtype)
        plan = self._plan(options)
        shared = self.savings.shared_time
        t_shape = (batch, 1 if shared else frames), (batch, 1 if shared else rows)
        v_video: torch.Tensor | None = None
        v_action: torch.Tensor | None = None
        timesteps: list[int] = []
        for i, t in enumerate(plan.video.schedule.timesteps):
            if skip.runs(i):
                needed = self._needs_uncond(i, skip, options)
                t_video = plan.t_video[i].expand(t_shape[0])
                t_action = plan.t_action[i].expand(t_shape[1])
                step = Step(video, y, t_video, action, t_action, state, start)
                v = self.branches.denoise(step, needed, self._needs_video(i, skip, options))
                v_video, v_action = guide(v.video, v.video_uncond, options.guidance), v.action
                if v_video is not None:
                    skip.computed(v_video)
                timesteps.append(t)
            assert v_action is not None
            action = plan.action.step(v_action, action)
            if v_video is not None:
                video = plan.video.step(v_video, video)
        return (video if options.want_video else None), action, tuple(timesteps)

    def _plan(self, options: CallOptions) -> Schedules:
        key = (options.steps, options.final_noise)
        if key not in self._schedules:
            self._schedules[key] = Schedules.of(self.config.head, options, self.device)
        plan = self._schedules[key]
        plan.video.reset()
        plan.action.reset()
        return plan
