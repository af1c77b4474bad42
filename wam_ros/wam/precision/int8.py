"""Linear layers with 8-bit integer weights and full activations: less memory, no more speed."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from wam_ros.wam.precision.quantized import QuantizedLinear, row_scales


class Int8Linear(QuantizedLinear):
    """``y = (x Q^T) s + b`` with integer ``Q`` in -127 .. 127 and a scale per output row.

    The weight is widened at every call, so that on a GPU it is slower than bfloat16.
    """

    storage = torch.int8

    @classmethod
    def quantize(cls, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Nearest integers and scales."""
        scale = row_scales(weight, 127.0)
        return (weight.float() / scale).round().clamp(-127, 127).to(torch.int8), scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``x`` [..., in] to [..., out] in x's precision."""
        y = F.linear(x, self.weight.to(x.dtype)).float() * self.weight_scale.t()
        if self.bias is not None:
            y = y + self.bias.float()
        return y.to(x.dtype)
