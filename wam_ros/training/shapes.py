"""Whether a configuration trains, in shapes only: meta tensors have a size and no memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from wam_ros.training.lora import add_lora
from wam_ros.wam.checkpoint.load import build
from wam_ros.wam.config import WamConfig


@dataclass(frozen=True)
class ShapeReport:
    """What one training window of a configuration amounts to."""

    name: str
    parameters: int
    trained: int
    tokens: int
    blocks: int

    def lines(self) -> list[str]:
        """For a person; memory is AdamW in fp32 beside bf16 weights, without activations."""
        state = self.trained * (4 + 4 + 4 + 2) / 2**30
        weights = self.parameters * 2 / 2**30
        return [
            f"{self.name}: transformer of {self.parameters / 1e9:.3f} B parameters, "
            f"{self.trained / 1e6:.1f} M of them trained",
            f"a window of {self.blocks} blocks is {self.tokens} tokens",
            f"weights {weights:.1f} GiB in bf16, gradients and AdamW state {state:.1f} GiB",
        ]


def check_shapes(config: WamConfig, lora: bool = False) -> ShapeReport:
    """Run a training forward and backward of the largest window on meta tensors.

    Raises
    ------
    RuntimeError
        From torch, if shapes do not fit.
    """
    c = config.dit
    dit = build(config).dit
    if lora:
        add_lora(dit, config)
    else:
        dit.requires_grad_(True)
    blocks = max(c.max_chunk_size, 1)
    frames = 1 + blocks * c.num_frame_per_block
    rows = blocks * c.num_action_per_block
    with torch.device("meta"):
        z = torch.empty(1, c.out_dim, frames, *config.latent_size)
        y = torch.empty(1, c.out_dim + 4, frames, *config.latent_size)
        context = dit.embed_context(
            torch.empty(1, c.text_len, c.text_dim), torch.empty(1, c.image_tokens, c.image_dim)
        )
        video, action = dit(
            z,
            z,
            y if c.concat_first_frame_latent else None,
            torch.empty(1, frames, dtype=torch.long),
            torch.empty(1, rows, c.action_dim),
            torch.empty(1, rows, dtype=torch.long),
            torch.empty(1, blocks * c.num_state_per_block, c.max_state_dim),
            context,
        )
        if video.shape != z.shape or action.shape != (1, rows, c.action_dim):
            raise RuntimeError(f"{config.name}: a forward gave {video.shape} and {action.shape}")
        (video.square().mean() + action.square().mean()).backward()
    return ShapeReport(
        config.name,
        sum(p.numel() for p in dit.parameters()),
        sum(p.numel() for p in dit.parameters() if p.requires_grad),
        2 * frames * c.frame_seqlen + rows + blocks * c.num_state_per_block,
        blocks,
    )
