"""What the quantised linears share: being filled, moved, joined, split, saved and loaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeVar

import torch
from torch import nn

Q = TypeVar("Q", bound="QuantizedLinear")


def row_scales(x: torch.Tensor, largest: float) -> torch.Tensor:
    """float32 scales [..., 1] that bring each row of ``x`` [..., n] into +-``largest``.

    Rows of zeros get a tiny scale instead of a division by zero.
    """
    return x.abs().amax(-1, keepdim=True).float().clamp(min=1e-12) / largest


class QuantizedLinear(nn.Module):
    """A linear whose weight [out, in] is stored in ``storage`` with one float32 scale per row.

    A subclass says how a weight is quantised and how it is multiplied. Rows are independent, so
    that joining linears (`join`) gives bit for bit what quantising the joined weight would.

    Attributes
    ----------
    weight, weight_scale
        Buffers [out, in] and [out, 1].
    bias
        [out] in the precision of the activations, or None.
    """

    storage: ClassVar[torch.dtype]
    weight: torch.Tensor
    weight_scale: torch.Tensor

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, device: Any = None
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        weight = torch.empty(out_features, in_features, dtype=self.storage, device=device)
        self.register_buffer("weight", weight)
        scale = torch.ones(out_features, 1, dtype=torch.float32, device=device)
        self.register_buffer("weight_scale", scale)
        self.bias: nn.Parameter | None = None
        if bias:
            empty = torch.zeros(out_features, device=device)
            self.bias = nn.Parameter(empty, requires_grad=False)

    @classmethod
    def quantize(cls, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Stored weight and scales of a weight [out, in]."""
        raise NotImplementedError

    def dequantized(self) -> torch.Tensor:
        """The weight it stands for, float32 [out, in]."""
        return self.weight.float() * self.weight_scale

    @classmethod
    def of(cls: type[Q], linear: nn.Linear) -> Q:
        """Quantise a linear; on the meta device there is nothing to quantise yet."""
        new = cls(linear.in_features, linear.out_features, linear.bias is not None, "meta")
        if not linear.weight.is_meta:
            new.place_weight(linear.weight.detach())
        if linear.bias is not None:
            new.bias = nn.Parameter(linear.bias.detach(), requires_grad=False)
        return new

    def place_weight(self, weight: torch.Tensor) -> None:
        """Quantise and keep ``weight``; how a checkpoint is loaded tensor by tensor.

        Raises
        ------
        ValueError
            If it has another shape.
        """
        expected = (self.out_features, self.in_features)
        if tuple(weight.shape) != expected:
            raise ValueError(f"weight has shape {tuple(weight.shape)}, expected {expected}")
        self.weight, self.weight_scale = self.quantize(weight)
        self._placed()

    def _placed(self) -> None:
        """Called whenever the weight has come to another device."""

    @classmethod
    def join(cls: type[Q], parts: Sequence[Q]) -> Q:
        """One linear whose outputs are those of ``parts``, one after the other."""
        new = cls(parts[0].in_features, sum(p.out_features for p in parts), True, "meta")
        # Viewed as bytes: not every build concatenates 8-bit floats.
        raw = torch.cat([p.weight.view(torch.uint8) for p in parts])
        new.weight = raw.view(cls.storage)
        new.weight_scale = torch.cat([p.weight_scale for p in parts])
        biases = [p.bias for p in parts if p.bias is not None]
        new.bias = nn.Parameter(torch.cat(biases), False) if biases else None
        new._placed()
        return new

    def separate(self: Q, count: int) -> list[Q]:
        """Undo `join` of ``count`` linears of equal size."""
        parts = []
        out = self.out_features // count
        for i in range(count):
            rows = slice(i * out, (i + 1) * out)
            part = type(self)(self.in_features, out, self.bias is not None, "meta")
            part.weight = self.weight[rows].clone()
            part.weight_scale = self.weight_scale[rows].clone()
            if self.bias is not None:
                part.bias = nn.Parameter(self.bias.detach()[rows].clone(), False)
            part._placed()
            parts.append(part)
        return parts

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Any:
        # `module.to(bfloat16)` means the activations: it must not undo the quantisation.
        weight, scale = self.weight, self.weight_scale
        super()._apply(fn, recurse)
        if self.weight.dtype != self.storage:
            self.weight = weight.to(self.weight.device)
        if self.weight_scale.dtype != torch.float32:
            self.weight_scale = scale.to(self.weight.device)
        self._placed()
        return self

    def _load_from_state_dict(self, state: Any, prefix: str, *args: Any) -> None:
        # A state of unquantised weights loads as well.
        weight = state.get(prefix + "weight")
        if weight is not None and weight.dtype != self.storage:
            stored, scale = self.quantize(weight.to(self.weight.device))
            state = {**state, prefix + "weight": stored, prefix + "weight_scale": scale}
        super()._load_from_state_dict(state, prefix, *args)

    def extra_repr(self) -> str:
        """For printing the module."""
        return f"{self.in_features}, {self.out_features}, {self.storage}"
