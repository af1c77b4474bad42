"""Causal convolutions in space and time as convolutions in the plane, for the CPU.

PyTorch's 3-D convolution has no fast kernel on a CPU. A convolution that strides by one in time is
a sum of 2-D ones, one per tap, and 2-D ones have fast kernels: the first frame of a clip, before
which there are only zeros, takes a tenth of the time, four frames take 0.4 of it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def planar_on_cpu(net: nn.Module) -> None:
    """Have the causal convolutions of a Wan VAE work plane by plane wherever they run on a CPU."""
    from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d

    class Planar(WanCausalConv3d):
        def forward(self, x: Tensor, cache_x: Tensor | None = None) -> Tensor:
            if not x.is_cpu:
                return super().forward(x, cache_x)
            return _convolve(self, x, cache_x)

    for module in net.modules():
        if type(module) is WanCausalConv3d and _fits(module):
            module.__class__ = Planar


def _fits(conv: nn.Conv3d) -> bool:
    """Whether every frame has its output: a step of one in time, padded by the past alone."""
    one_by_one = conv.stride[0] == 1 and conv.dilation == (1, 1, 1) and conv.groups == 1
    return one_by_one and conv._padding[4] == conv.kernel_size[0] - 1


def _convolve(conv: nn.Conv3d, x: Tensor, past: Tensor | None) -> Tensor:
    """``x`` [B, C, T, H, W] after at most as many frames of ``past`` as the kernel looks back."""
    back, count = conv.kernel_size[0] - 1, x.shape[2]
    if past is not None and back:
        x = torch.cat([past[:, :, -back:].to(x.device), x], dim=2)
    known = x.shape[2] - count
    planes = x.transpose(1, 2)

    def tap(k: int, bias: Tensor | None) -> Tensor:
        """What the frames ``k`` before each add to it; those before the first known one nothing."""
        first = max(0, k - known)
        seen = planes[:, known - k + first : known - k + count]
        flat = nn.functional.conv2d(
            seen.flatten(0, 1),
            conv.weight[:, :, back - k],
            bias,
            conv.stride[1:],
            (conv._padding[2], conv._padding[0]),
        )
        return flat.unflatten(0, seen.shape[:2])

    out = tap(0, conv.bias)
    for k in range(1, back + 1):
        first = max(0, k - known)
        if first < count:
            added = tap(k, None)
            if first:
                added = nn.functional.pad(added, (0, 0, 0, 0, 0, 0, first, 0))
            out = out + added
    return out.transpose(1, 2).contiguous()
