"""The causal-chunk diffusion transformer: training forward, prefill and denoising.

Parameter names are those of the released checkpoints below ``action_head.model.``. The linears are
plain ``nn.Linear`` and may be replaced one by one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from wam_ros.wam.attention import AttentionFn, sdpa
from wam_ros.wam.cache import Cache, GrowingCache, StaticCache
from wam_ros.wam.config import DiTConfig
from wam_ros.wam.embodiment import ActionEncoder, CategoryMLP
from wam_ros.wam.layers import Block, Head, TextImageKV, TimeRows
from wam_ros.wam.mask import training_mask
from wam_ros.wam.patches import patchify, time_sinusoid, unpatchify
from wam_ros.wam.rope import Rotation, RotationTables

# Where there is no limit on the context, the reference keeps this many latent frames.
_UNLIMITED_FRAMES = 21


@dataclass(frozen=True)
class Context:
    """Prompt and first image, projected to the model's width.

    ``text`` [B, text_len, D], ``image`` [B, 257, D]; ``kv`` holds every layer's cross-attention
    keys and values, or None to have each forward compute them.
    """

    text: torch.Tensor
    image: torch.Tensor
    kv: tuple[TextImageKV, ...] | None = None

    def rows(self, batch: slice) -> Context:
        """The context of some rows of the batch; views, nothing is computed."""
        kv = self.kv and tuple(
            (k[batch], v[batch], ki[batch], vi[batch]) for k, v, ki, vi in self.kv
        )
        return Context(self.text[batch], self.image[batch], kv)


class _ImageProjection(nn.Module):
    def __init__(self, in_dim: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Sequential(
            nn.LayerNorm(in_dim),
            nn.Linear(in_dim, in_dim),
            nn.GELU(),
            nn.Linear(in_dim, dim),
            nn.LayerNorm(dim),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.proj(x)


class CausalDiT(nn.Module):
    """Predicts the velocities of the next latent frames and of the actions that lead there.

    Attributes
    ----------
    attend
        The attention kernel (`attention.attention_backend`).
    rotations
        RoPE tables; replace by ``RotationTables(head_dim, real=True)`` for float32 ones.
    seeing_states
        Whether states see in training what they see at inference (`mask.training_mask`). The
        released models were trained without.
    """

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        c = self.config = config
        self.patch_embedding = nn.Conv3d(c.in_dim, c.dim, c.patch_size, c.patch_size)
        self.text_embedding = nn.Sequential(
            nn.Linear(c.text_dim, c.dim), nn.GELU(approximate="tanh"), nn.Linear(c.dim, c.dim)
        )
        self.time_embedding = nn.Sequential(
            nn.Linear(c.freq_dim, c.dim), nn.SiLU(), nn.Linear(c.dim, c.dim)
        )
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(c.dim, 6 * c.dim))
        self.img_emb = _ImageProjection(c.image_dim, c.dim)
        self.state_encoder = CategoryMLP(1, c.max_state_dim, c.hidden_size, c.dim)
        self.action_encoder = ActionEncoder(1, c.action_dim, c.dim)
        self.action_decoder = CategoryMLP(1, c.dim, c.hidden_size, c.action_dim)
        self.blocks = nn.ModuleList(Block(c) for _ in range(c.num_layers))
        patch = c.patch_size[0] * c.patch_size[1] * c.patch_size[2]
        self.head = Head(c.dim, patch * c.out_dim, c.eps)
        self.rotations = RotationTables(c.head_dim)
        self.attend: AttentionFn = sdpa
        self.seeing_states = False

    # ------------------------------------------------------------------ context and caches

    def embed_context(self, text: torch.Tensor, clip: torch.Tensor) -> Context:
        """Project prompt embeddings [B, text_len, text_dim] and image features [B, 257, dim]."""
        return Context(self.text_embedding(text), self.img_emb(clip))

    def with_keys(self, context: Context) -> Context:
        """The context with every layer's keys and values computed once."""
        kv = tuple(b.cross_attn.keys_values(context.text, context.image) for b in self.blocks)
        return Context(context.text, context.image, kv)

    @property
    def window_tokens(self) -> int:
        """Most video tokens a forward may attend to."""
        frames = self.config.local_attn_size
        return (frames if frames > 0 else _UNLIMITED_FRAMES) * self.config.frame_seqlen

    def growing_cache(self) -> GrowingCache:
        """A cache that concatenates, as the reference does."""
        return GrowingCache(len(self.blocks), self.window_tokens)

    def static_cache(self, batch: int = 1) -> StaticCache:
        """A cache written in place, for ``batch`` branches in one forward."""
        c, weight = self.config, self.patch_embedding.weight
        sizes = (self.window_tokens, c.register_len, c.num_heads, c.head_dim)
        return StaticCache.allocate(
            len(self.blocks), batch, *sizes, dtype=weight.dtype, device=weight.device
        )

    # ------------------------------------------------------------------ pieces of a forward

    def _video_tokens(self, x: torch.Tensor, y: torch.Tensor | None) -> torch.Tensor:
        """Tokens [B, F h w, D] of latents [B, z, F, H, W] and conditioning [B, z + 4, F, H, W]."""
        if y is not None:
            x = torch.cat((x, y), dim=1)
        # The convolution's stride equals its kernel: it is a linear map of patches.
        weight = self.patch_embedding.weight.flatten(1)
        patches = patchify(x, self.config.patch_size)
        return nn.functional.linear(patches, weight, self.patch_embedding.bias)

    def _times(self, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Embedding [B, R, D] and block modulation [B, R, 6, D] of timesteps [B, R]."""
        dtype = self.patch_embedding.weight.dtype
        e = self.time_embedding(time_sinusoid(t, self.config.freq_dim).to(dtype))
        return e, self.time_projection(e).unflatten(-1, (6, -1))

    def _context_kv(self, context: Context, layer: int) -> TextImageKV:
        if context.kv is not None:
            return context.kv[layer]
        return self.blocks[layer].cross_attn.keys_values(context.text, context.image)

    def _grid(self, x: torch.Tensor) -> tuple[int, int, int]:
        p = self.config.patch_size
        return x.shape[2] // p[0], x.shape[3] // p[1], x.shape[4] // p[2]

    def _video_out(self, x: torch.Tensor, e: TimeRows, grid: tuple[int, int, int]) -> torch.Tensor:
        return unpatchify(self.head(x, e), grid, self.config.patch_size)

    # ------------------------------------------------------------------ inference

    def prefill(
        self,
        x: torch.Tensor,
        y: torch.Tensor | None,
        t: torch.Tensor,
        start_frame: int,
        context: Context,
        cache: Cache,
        want_output: bool = True,
    ) -> torch.Tensor | None:
        """Append observed latents to the cache.

        Parameters
        ----------
        x
            Observed latents [B, z, F, H, W].
        y
            Conditioning of these frames [B, z + 4, F, H, W], or None for a model without.
        t
            Zeros [B, F], or [B, 1] to embed the time once for all tokens.
        start_frame
            Index in the window of the first latent frame.
        want_output
            Whether to return the velocity [B, z, F, H, W]; nothing needs it, and without it
            everything after the last layer's keys and values is left out.
        """
        grid = self._grid(x)
        h = self._video_tokens(x, y)
        rotation = self.rotations.video(grid, start_frame, h.device)
        e, time = self._time_rows(t, grid, h.shape[1])
        tokens, last = h.shape[1], len(self.blocks) - 1
        for i, block in enumerate(self.blocks):
            slot = cache.slot(i, tokens, tokens)
            if i == last and not want_output:
                _, k, v = block.project(h, time, rotation)
                if slot is not None:
                    slot.fill(k, v)
            else:
                kv = self._context_kv(context, i)
                h, (k, v) = block(h, time, rotation, slot, kv, self.attend)
            cache.commit(i, k, v)
        cache.advance(tokens)
        return self._video_out(h, e, grid) if want_output else None

    def _time_rows(
        self, t: torch.Tensor, grid: tuple[int, int, int], tokens: int
    ) -> tuple[TimeRows, TimeRows]:
        if t.shape[1] == 1 and grid[0] > 1:
            lengths: tuple[int, ...] | None = (tokens,)
        else:
            lengths = None
            t = t.repeat_interleave(tokens // grid[0], dim=1)
        e, e0 = self._times(t)
        return TimeRows(e, lengths), TimeRows(e0, lengths)

    def denoise(
        self,
        x: torch.Tensor,
        y: torch.Tensor | None,
        t: torch.Tensor,
        action: torch.Tensor,
        t_action: torch.Tensor,
        state: torch.Tensor,
        start_frame: int,
        context: Context,
        cache: Cache,
        want_video: bool = True,
    ) -> tuple[torch.Tensor | None, torch.Tensor]:
        """Predict the velocities of one block of video and actions.

        Parameters
        ----------
        x, y
            Noisy latents [B, z, K, H, W] and their conditioning, as for `prefill`.
        t, t_action
            Integer timesteps [B, K] and [B, actions]; or both [B, 1], where all frames and all
            actions share theirs, to embed each once.
        action, state
            [B, actions, action_dim] and [B, states, max_state_dim].
        start_frame
            Index in the window of the first new frame; 1 + a multiple of K.
        want_video
            Without, the video's velocity is not computed and None in its place.

        Returns
        -------
        Video velocity [B, z, K, H, W] and action velocity [B, actions, action_dim].
        """
        grid = self._grid(x)
        video = self._video_tokens(x, y)
        n, actions, states = video.shape[1], action.shape[1], state.shape[1]
        h = torch.cat(
            (video, self.action_encoder(action, t_action), self.state_encoder(state)), dim=1
        )
        rotation = self._block_rotation(grid, start_frame, actions, states, h.device)
        if t.shape[1] == 1 and t_action.shape[1] == 1:
            e, e0 = self._times(torch.cat((t, t_action), dim=1))
            time = TimeRows(e0, (n, actions + states))
            e_video = TimeRows(e[:, :1], (n,))
        else:
            t_state = t_action[:, :: actions // states]
            t_video = t.repeat_interleave(n // grid[0], dim=1)
            e, e0 = self._times(torch.cat((t_video, t_action, t_state), dim=1))
            time, e_video = TimeRows(e0), TimeRows(e[:, :n])
        last = len(self.blocks) - 1
        for i, block in enumerate(self.blocks):
            slot = cache.slot(i, h.shape[1], n)
            skip = n if i == last and not want_video else 0
            kv = self._context_kv(context, i)
            h, _ = block(h, time, rotation, slot, kv, self.attend, skip=skip)
        h_action = h[:, -(actions + states) : h.shape[1] - states]
        velocity = self.action_decoder(h_action)
        if not want_video:
            return None, velocity
        return self._video_out(h[:, :n], e_video, grid), velocity

    def _block_rotation(
        self,
        grid: tuple[int, int, int],
        start_frame: int,
        actions: int,
        states: int,
        device: torch.device,
    ) -> Rotation:
        block = (start_frame - 1) // self.config.num_frame_per_block
        return self.rotations.block(
            grid, start_frame, (block * actions, actions), (block * states, states), device
        )

    # ------------------------------------------------------------------ training

    def forward(
        self,
        noisy: torch.Tensor,
        clean: torch.Tensor,
        y: torch.Tensor | None,
        t: torch.Tensor,
        action: torch.Tensor,
        t_action: torch.Tensor,
        state: torch.Tensor,
        context: Context,
        lean: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Teacher-forcing forward over a whole window.

        Parameters
        ----------
        noisy, clean
            Latents [B, z, F, H, W] with F = 1 + K blocks.
        y
            Conditioning [B, z + 4, F, H, W] of both halves, or None.
        t
            Timesteps [B, F] of the noisy frames; equal inside a block.
        action, t_action, state
            [B, blocks x actions, action_dim], [B, blocks x actions], [B, blocks x states, ...].
            ``t_action`` may be [B, blocks] where a block's actions share theirs.
        lean
            Leave out what no later block sees: the clean copy of the last block and the noisy copy
            of the first frame. Nothing else changes.

        Returns
        -------
        Video velocity [B, z, F, H, W], or [B, z, F - 1, H, W] of the frames after the first when
        ``lean``, and action velocity [B, blocks x actions, action_dim].
        """
        c, grid = self.config, self._grid(noisy)
        actions, states = action.shape[1], state.shape[1]
        blocks, first = actions // c.num_action_per_block, int(lean)
        past = slice(0, grid[0] - c.num_frame_per_block) if lean else slice(None)
        halves = (
            self._video_tokens(clean[:, :, past], None if y is None else y[:, :, past]),
            self._video_tokens(noisy[:, :, first:], None if y is None else y[:, :, first:]),
        )
        before, n = halves[0].shape[1], halves[1].shape[1]
        each = n // (grid[0] - first)  # tokens of a frame
        t_rows = t_action.repeat_interleave(actions // t_action.shape[1], dim=1)
        h = torch.cat(
            (*halves, self.action_encoder(action, t_rows), self.state_encoder(state)), dim=1
        )
        time, e_video = self._training_times(t[:, first:], t_action, before, each, blocks)
        shape = (grid[1], grid[2])
        one = self.rotations.video((before // each, *shape), 0, h.device)
        block = self.rotations.block(
            (n // each, *shape), first, (0, actions), (0, states), h.device
        )
        rotation = Rotation(torch.cat((one.cos, block.cos)), torch.cat((one.sin, block.sin)))
        mask = self._training_mask(grid[0], each, lean).to(h.device)
        for i, layer in enumerate(self.blocks):
            kv = self._context_kv(context, i)
            h, _ = layer(h, time, rotation, None, kv, self.attend, mask=mask)
        end = before + n
        video = self._video_out(h[:, before:end], e_video, (n // each, *shape))
        return video, self.action_decoder(h[:, end : end + actions])

    def _training_times(
        self, t: torch.Tensor, t_action: torch.Tensor, before: int, each: int, blocks: int
    ) -> tuple[TimeRows, TimeRows]:
        """Modulation of all tokens of a training forward, and embedding of the noisy video's.

        ``before`` clean tokens lead; a noisy frame has ``each`` tokens.
        """
        c = self.config
        k, rows, states = c.num_frame_per_block, c.num_action_per_block, c.num_state_per_block
        zero, n = torch.zeros_like(t[:, :1]), t.shape[1] * each
        opening = t.shape[1] - k * blocks  # the first frame, where its noisy copy is there
        if t_action.shape[1] == blocks:
            video = (each,) * opening + (k * each,) * blocks
            levels = torch.cat((t[:, :opening], t[:, opening::k]), dim=1)
            e, e0 = self._times(torch.cat((zero, levels, t_action, t_action), dim=1))
            lengths = (before, *video, *(rows,) * blocks, *(states,) * blocks)
            return TimeRows(e0, lengths), TimeRows(e[:, 1 : 1 + len(video)], video)
        t_state = t_action[:, :: rows // states]
        every = (zero.expand(-1, before), t.repeat_interleave(each, dim=1), t_action, t_state)
        e, e0 = self._times(torch.cat(every, dim=1))
        return TimeRows(e0), TimeRows(e[:, before : before + n])

    def _training_mask(self, frames: int, frame_tokens: int, lean: bool) -> torch.Tensor:
        c = self.config
        mask = training_mask(
            frames,
            frame_tokens,
            frames_per_block=c.num_frame_per_block,
            actions_per_block=c.num_action_per_block,
            states_per_block=c.num_state_per_block,
            local_attn_size=c.local_attn_size,
            seeing_states=self.seeing_states,
        )
        if not lean:
            return mask
        whole = frames * frame_tokens
        keep = torch.ones(len(mask), dtype=torch.bool)
        keep[whole - c.num_frame_per_block * frame_tokens : whole + frame_tokens] = False
        return mask[keep][:, keep]
