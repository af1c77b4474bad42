"""The layers of a Wan VAE in forms for which a CPU has fast kernels.

PyTorch's 3-D convolution has none in float32. A convolution that strides by one in time is a sum of
2-D ones, one per tap, and 2-D ones have fast kernels: the first frame of a clip, before which there
are only zeros, takes a tenth of the time, four frames take 0.4 of it. In bfloat16 only the first
frame gains. Likewise `torch.nn.functional.normalize` over the channels takes longer than the
convolution that follows, because it walks memory with long strides.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def planar_on_cpu(net: nn.Module) -> None:
    """Have the causal convolutions of a Wan VAE work plane by plane wherever that is faster."""
    from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d

    class Planar(WanCausalConv3d):
        def forward(self, x: Tensor, cache_x: Tensor | None = None) -> Tensor:
            if not x.is_cpu or (cache_x is not None and _half(x)):
                return super().forward(x, cache_x)
            return _convolve(self, x, cache_x)

    for module in net.modules():
        if type(module) is WanCausalConv3d and _fits(module):
            module.__class__ = Planar


def normalize(x: Tensor, dim: int) -> Tensor:
    """`torch.nn.functional.normalize`, to within rounding; not for bfloat16 that has to match."""
    return x * x.square().sum(dim, keepdim=True).clamp_min(_TINY).rsqrt()


_TINY = 1e-24  # square of what `torch.nn.functional.normalize` does not divide by less than


def _half(x: Tensor) -> bool:
    """Whether a convolution of ``x`` would run in half precision."""
    return x.dtype == torch.bfloat16 or torch.is_autocast_enabled("cpu")


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
