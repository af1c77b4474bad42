"""Who sees whom in a training forward (teacher forcing with clean and noisy copies)."""

from __future__ import annotations

import torch


def training_mask(
    frames: int,
    frame_tokens: int,
    *,
    frames_per_block: int,
    actions_per_block: int,
    states_per_block: int,
    local_attn_size: int,
    seeing_states: bool = False,
) -> torch.Tensor:
    """Boolean mask [S, S], rows are queries: true where the query sees the key.

    Token order: clean video | noisy video | actions | states, with 1 + K x blocks latent frames.
    Frame 0 stands alone; block i covers the K frames after it. ``local_attn_size`` limits how many
    latent frames a clean block looks back, its own included; frame 0 and the block itself are seen
    in any case. With -1 the clean part is causal token by token.

    In the released models' training a state sees itself only, though at inference it sees all that
    its block's actions see. With ``seeing_states`` it does so here, too.

    Raises
    ------
    ValueError
        When ``frames - 1`` is not a multiple of ``frames_per_block``.
    """
    blocks, rest = divmod(frames - 1, frames_per_block)
    if rest:
        raise ValueError(
            f"{frames} latent frames are not 1 + a multiple of the block of {frames_per_block}"
        )
    index = torch.arange(frames)
    frame_block = torch.div(index - 1, frames_per_block, rounding_mode="floor")  # frame 0 -> -1
    video_frame = index.repeat_interleave(frame_tokens)
    video_block = frame_block.repeat_interleave(frame_tokens)
    actions = torch.arange(blocks).repeat_interleave(actions_per_block)
    states = torch.arange(blocks).repeat_interleave(states_per_block)

    n, a = frames * frame_tokens, len(actions)
    size = 2 * n + a + len(states)
    mask = torch.zeros(size, size, dtype=torch.bool)
    clean, noisy = slice(0, n), slice(n, 2 * n)
    act, sta = slice(2 * n, 2 * n + a), slice(2 * n + a, size)

    if local_attn_size == -1:
        mask[clean, clean] = torch.ones(n, n, dtype=torch.bool).tril()
    else:
        block_end = 1 + (video_block + 1) * frames_per_block
        oldest = (block_end - local_attn_size).clamp(min=0)
        up_to_own = video_block[None] <= video_block[:, None]
        recent = (video_frame[None] >= oldest[:, None]) | (video_frame[None] == 0)
        recent |= video_block[None] == video_block[:, None]
        mask[clean, clean] = up_to_own & recent
    mask[noisy, clean] = video_block[None] < video_block[:, None]
    mask[noisy, noisy] = video_block[None] == video_block[:, None]
    mask[noisy, act] = actions[None] == video_block[:, None]
    mask[noisy, sta] = states[None] == video_block[:, None]
    mask[act, clean] = video_block[None] < actions[:, None]
    mask[act, noisy] = video_block[None] == actions[:, None]
    mask[act, act] = actions[None] == actions[:, None]
    mask[act, sta] = states[None] == actions[:, None]
    mask[sta, sta] = states[None] == states[:, None]
    if seeing_states:
        mask[sta, clean] = video_block[None] < states[:, None]
        mask[sta, noisy] = video_block[None] == states[:, None]
        mask[sta, act] = actions[None] == states[:, None]
    return mask
