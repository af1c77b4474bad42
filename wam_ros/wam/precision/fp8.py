"""Linear layers in 8-bit floating point (E4M3): weights once, activations at every call.

    y = (q(x) q(w)^T) * (s_x s_w^T) + bias,   q(a) = round_e4m3(a / s_a),  s_a = amax(row of a)/448

with one scale per output row of the weight and one per token. The product is scaled outside the
sum, so three ways to compute it agree up to the order of summation and the output's rounding:

* ``rowwise``: `torch._scaled_mm` with both scales, the fast way on Hopper;
* ``tensorwise``: `torch._scaled_mm` with scales of one and the outer product applied to its
  float32 result, for GPUs whose library refuses row-wise scales;
* ``reference``: the 8-bit values multiplied in float32, where products of two are exact.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F

from wam_ros.wam.precision.quantized import QuantizedLinear, row_scales

E4M3 = torch.float8_e4m3fn
LARGEST = 448.0
"""Largest finite E4M3 value."""

KERNELS = ("rowwise", "tensorwise", "reference")


def quantize_rows(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """E4M3 values [..., n] and float32 scales [..., 1] of the rows of ``x`` [..., n]."""
    scale = row_scales(x, LARGEST)
    # Rounding may put the largest a hair above 448, which the cast would make a NaN.
    values = (x.float() / scale).clamp(-LARGEST, LARGEST).to(E4M3)
    return values, scale


def product(
    kernel: str,
    x: torch.Tensor,
    x_scale: torch.Tensor,
    w: torch.Tensor,
    w_scale: torch.Tensor,
    bias: torch.Tensor | None,
    dtype: torch.dtype,
    fast: bool = True,
) -> torch.Tensor:
    """Multiply E4M3 rows ``x`` [M, K] by the weight ``w`` [N, K]; returns [M, N] in ``dtype``.

    ``fast`` lets the tensor cores keep partial sums in less than float32 (Hopper only).
    """
    if kernel == "rowwise":
        out: torch.Tensor = torch._scaled_mm(
            x, w.t(), x_scale, w_scale.t(), bias=bias, out_dtype=dtype, use_fast_accum=fast
        )
        return out
    if kernel == "tensorwise":
        one = torch.ones((), device=x.device)
        raw = torch._scaled_mm(x, w.t(), one, one, out_dtype=torch.float32, use_fast_accum=fast)
    else:
        raw = F.linear(x.float(), w.float())
    y = raw * x_scale * w_scale.t()
    return (y if bias is None else y + bias.float()).to(dtype)


@functools.cache
def best_kernel(device: torch.device) -> str:
    """The first of `KERNELS` that runs on ``device``, found by trying a small product."""
    if device.type == "meta":
        return "reference"
    x, s = torch.ones(32, 32, device=device).to(E4M3), torch.ones(32, 1, device=device)
    for kernel in KERNELS[:2]:
        try:
            out = product(kernel, x, s, x, s, None, torch.bfloat16)
        except (RuntimeError, AttributeError, NotImplementedError):
            continue
        if bool((out == 32).all()):
            return kernel
    return "reference"


class Fp8Linear(QuantizedLinear):
    """``y = x W^T + b`` in E4M3, see the module. Both widths must be multiples of 16.

    Attributes
    ----------
    kernel
        One of `KERNELS`; chosen for the device when the weight arrives there.
    fast_accum
        Faster, slightly less exact sums on Hopper.
    """

    storage = E4M3
    kernel = "reference"
    fast_accum = True

    @classmethod
    def quantize(cls, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See `quantize_rows`."""
        return quantize_rows(weight)

    def _placed(self) -> None:
        self.kernel = best_kernel(self.weight.device)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``x`` [..., in] to [..., out] in x's precision."""
        values, scale = quantize_rows(x.reshape(-1, self.in_features))
        kernel, dtype, out = self.kernel, x.dtype, x.dtype
        if kernel == "rowwise" and x.is_cuda and dtype != torch.bfloat16:
            # The CUDA kernel writes bfloat16 only; float32 activations are for comparisons.
            kernel = "tensorwise"
        bias = None if self.bias is None else self.bias.to(out)
        y = product(
            kernel, values, scale, self.weight, self.weight_scale, bias, out, self.fast_accum
        )
        return y.unflatten(0, x.shape[:-1])
