"""The CLIP image tower that gives the DiT its picture of the first frame."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wam_ros.wam.config import ClipConfig
from wam_ros.wam.keymaps import clip as keymap
from wam_ros.wam.stored import StoredNetwork

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


class ImageEncoder(StoredNetwork):
    """`transformers.CLIPVisionModel` without its last layer and final norm, with exact GELU."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__(keymap.entries(config))
        from transformers import CLIPVisionConfig, CLIPVisionModel

        model = CLIPVisionModel(
            CLIPVisionConfig(
                hidden_size=config.dim,
                intermediate_size=config.dim * config.mlp_ratio,
                projection_dim=config.out_dim,
                num_hidden_layers=config.num_layers - 1,
                num_attention_heads=config.num_heads,
                image_size=config.image_size,
                patch_size=config.patch_size,
                hidden_act="gelu",
                layer_norm_eps=config.eps,
                attention_dropout=0.0,
            )
        ).eval()
        self.config = config
        # The tower sat one level deeper before transformers 5.
        self.net = getattr(model, "vision_model", model)
        # It serves the pooled output only, which nobody reads.
        self.net.post_layernorm = nn.Identity()
        # A buffer that no checkpoint stores: real even where the parameters are not yet.
        positions = torch.arange(config.tokens, device="cpu")[None]
        self.net.embeddings.register_buffer("position_ids", positions, persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Features [B, tokens, dim] of pixels [B, 3, S, S] as `preprocess` returns them."""
        return self.net(pixel_values=pixels.to(self.dtype)).last_hidden_state

    def encode(self, frames: Tensor) -> Tensor:
        """Features [B, tokens, dim] of frames [B, 3, H, W] in [-1, 1] of any size."""
        return self(self.preprocess(frames))

    def preprocess(self, frames: Tensor) -> Tensor:
        """Resize frames [B, 3, H, W] in [-1, 1] to the tower's square and normalise them.

        Bicubic without antialias and without keeping the aspect ratio, as the reference does.
        """
        size = (self.config.image_size, self.config.image_size)
        x = F.interpolate(frames, size=size, mode="bicubic", align_corners=False)
        x = x * 0.5 + 0.5
        mean = torch.tensor(MEAN, dtype=x.dtype, device=x.device).view(1, 3, 1, 1)
        std = torch.tensor(STD, dtype=x.dtype, device=x.device).view(1, 3, 1, 1)
        return (x - mean) / std
