"""Patches of latent frames to tokens and back, and the sinusoid of a timestep."""

from __future__ import annotations

import torch


def patchify(x: torch.Tensor, patch: tuple[int, int, int]) -> torch.Tensor:
    """Latents [B, C, F, H, W] to [B, tokens, C pt ph pw], tokens by frame, row, column."""
    pt, ph, pw = patch
    b, c, f, h, w = x.shape
    if f % pt or h % ph or w % pw:
        raise ValueError(f"latents of {f}x{h}x{w} do not divide into patches of {pt}x{ph}x{pw}")
    x = x.reshape(b, c, f // pt, pt, h // ph, ph, w // pw, pw)
    return x.permute(0, 2, 4, 6, 1, 3, 5, 7).reshape(b, -1, c * pt * ph * pw)


def unpatchify(
    x: torch.Tensor, grid: tuple[int, int, int], patch: tuple[int, int, int]
) -> torch.Tensor:
    """Tokens [B, f h w, pt ph pw C] (channel last inside a patch) to [B, C, F, H, W]."""
    (f, h, w), (pt, ph, pw) = grid, patch
    x = x.reshape(x.shape[0], f, h, w, pt, ph, pw, -1)
    x = x.permute(0, 7, 1, 4, 2, 5, 3, 6)
    return x.reshape(x.shape[0], x.shape[1], f * pt, h * ph, w * pw)


def time_sinusoid(t: torch.Tensor, width: int) -> torch.Tensor:
    """Encode timesteps ``t`` [...] as [..., width] float64: cosines first, then sines."""
    half = width // 2
    index = torch.arange(half, dtype=torch.float64, device=t.device)
    angles = t.double()[..., None] * torch.pow(10000.0, -index / half)
    return torch.cat((angles.cos(), angles.sin()), dim=-1)
