"""Linear layers in NVFP4 through torchao, on GPUs that multiply it (Blackwell)."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import nn

_CAPABILITY = (10, 0)
_PLACES = ("torchao.prototype.mx_formats", "torchao.prototype.mx_formats.inference_workflow")


class Nvfp4Unavailable(ValueError):
    """The machine or its packages cannot do NVFP4; the message says what it takes."""


def torchao_config(device: torch.device) -> Any:
    """torchao's configuration for NVFP4 weights and activations.

    Raises
    ------
    Nvfp4Unavailable
        Without a Blackwell GPU or without torchao.
    """
    if device.type != "cuda":
        raise Nvfp4Unavailable(
            f"nvfp4 needs an NVIDIA Blackwell GPU (compute capability 10.0 or later, such as B200 "
            f"or RTX PRO 6000) and torchao; the model is on '{device.type}'. Use fp8 or int8 here."
        )
    found = torch.cuda.get_device_capability(device)
    if found < _CAPABILITY:
        name = torch.cuda.get_device_name(device)
        raise Nvfp4Unavailable(
            f"nvfp4 needs an NVIDIA Blackwell GPU (compute capability 10.0 or later); {name} has "
            f"{found[0]}.{found[1]}. Use fp8 here."
        )
    for place in _PLACES:
        try:
            module = importlib.import_module(place)
        except ImportError:
            continue
        config = getattr(module, "NVFP4DynamicActivationNVFP4WeightConfig", None)
        if config is not None:
            return config()
    raise Nvfp4Unavailable("nvfp4 needs torchao 0.18 or later: pip install torchao")


class Nvfp4Linear(nn.Linear):
    """A linear that torchao quantises as soon as its weight arrives."""

    def place_weight(self, weight: torch.Tensor) -> None:
        """Keep ``weight`` [out, in], quantised."""
        config = torchao_config(weight.device)
        quantize_ = importlib.import_module("torchao.quantization").quantize_
        self.weight = nn.Parameter(weight, requires_grad=False)
        quantize_(self, config, filter_fn=lambda module, _name: module is self)

    @staticmethod
    def of(linear: nn.Linear) -> Nvfp4Linear:
        """Quantise a linear, or prepare one on the meta device."""
        new = Nvfp4Linear(linear.in_features, linear.out_features, device="meta")
        new.bias = linear.bias
        if not linear.weight.is_meta:
            new.place_weight(linear.weight.detach())
        return new
