"""Bring a transformer to a precision, all at once or while its checkpoint is read."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from wam_ros.wam.precision.fp8 import Fp8Linear
from wam_ros.wam.precision.int8 import Int8Linear
from wam_ros.wam.precision.nvfp4 import Nvfp4Linear, torchao_config
from wam_ros.wam.precision.quantized import QuantizedLinear
from wam_ros.wam.precision.sensitive import reason_to_keep

PRECISIONS = ("bf16", "fp8", "int8", "nvfp4")
_CLASSES: dict[str, Any] = {"fp8": Fp8Linear, "int8": Int8Linear, "nvfp4": Nvfp4Linear}


class PrecisionError(ValueError):
    """An unknown precision, or a model that is quantised already."""


@dataclass(frozen=True)
class Layer:
    """A linear: where it is, its precision, its bytes, and why it was kept if it was."""

    name: str
    shape: tuple[int, int]
    precision: str
    bytes: int
    kept: str | None


@dataclass(frozen=True)
class PrecisionReport:
    """What `apply_precision` found and did.

    Attributes
    ----------
    precision
        As asked for.
    layers
        All linears of the model.
    bytes
        Of all parameters and buffers now.
    bytes_bf16
        Of the same model with everything in bfloat16.
    """

    precision: str
    layers: tuple[Layer, ...]
    bytes: int
    bytes_bf16: int

    @property
    def replaced(self) -> tuple[Layer, ...]:
        """Linears that are quantised."""
        return tuple(x for x in self.layers if x.kept is None)

    @property
    def kept(self) -> tuple[Layer, ...]:
        """Linears that are not."""
        return tuple(x for x in self.layers if x.kept is not None)

    def summary(self) -> str:
        """One line."""
        return (
            f"{self.precision}: {len(self.replaced)} of {len(self.layers)} linears quantised, "
            f"{self.bytes / 1e6:.1f} MB ({self.bytes / self.bytes_bf16:.0%} of bf16)"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def _linears(model: nn.Module) -> list[tuple[str, Any]]:
    kinds = (nn.Linear, QuantizedLinear)
    return [(n, m) for n, m in model.named_modules() if isinstance(m, kinds)]


def _check(model: nn.Module, precision: str) -> None:
    if precision not in PRECISIONS:
        raise PrecisionError(f"precision '{precision}' is unknown; there are {listing()}")
    for name, module in _linears(model):
        if _precision_of(module):
            raise PrecisionError(
                f"{name} is {_precision_of(module)} already; load the checkpoint again to have "
                f"{precision} from its own weights"
            )


def listing() -> str:
    """The known precisions, for messages."""
    return ", ".join(PRECISIONS)


def _precision_of(module: nn.Module) -> str:
    return next((n for n, c in _CLASSES.items() if isinstance(module, c)), "")


def _replace(model: nn.Module, precision: str) -> None:
    make = _CLASSES[precision].of
    for name, module in _linears(model):
        if reason_to_keep(name, module.in_features, module.out_features) is None:
            path, _, leaf = name.rpartition(".")
            # One at a time, so that the old weight goes before the next new one comes.
            setattr(model.get_submodule(path), leaf, make(module))


def prepare(model: nn.Module, precision: str) -> None:
    """Make a model on the meta device take its weights quantised, one by one.

    `stored.place` then quantises each weight as it arrives, so that a checkpoint larger than the
    memory in bfloat16 loads straight into ``precision``.

    Raises
    ------
    PrecisionError
        If the precision is unknown or the model quantised already.
    """
    _check(model, precision)
    if precision != "bf16":
        _replace(model, precision)


@torch.no_grad()
def apply_precision(
    model: nn.Module, precision: str, dtype: torch.dtype = torch.bfloat16
) -> PrecisionReport:
    """Quantise the linears of a transformer in place.

    Parameters
    ----------
    model
        A `CausalDiT` with its weights; fused or not.
    precision
        ``bf16``, ``fp8``, ``int8`` (weights only) or ``nvfp4`` (Blackwell, torchao).
    dtype
        Precision of activations and of what is kept; weights are quantised from what the model has
        now, before this cast.

    Raises
    ------
    PrecisionError
        If the precision is unknown or the model quantised already.
    Nvfp4Unavailable
        If this GPU or environment cannot do NVFP4.
    """
    _check(model, precision)
    if precision == "nvfp4":
        model.to(dtype)
        torchao_config(next(model.parameters()).device)
    if precision != "bf16":
        _replace(model, precision)
    model.to(dtype)
    return describe(model, precision)


def describe(model: nn.Module, precision: str = "") -> PrecisionReport:
    """The report of a model as it is, such as one loaded after `prepare`."""
    layers = []
    for name, module in _linears(model):
        found = _precision_of(module)
        out, inputs = module.weight.shape
        kept = None if found else reason_to_keep(name, inputs, out) or "as loaded"
        precision = precision or found
        shown = found or str(module.weight.dtype).removeprefix("torch.")
        layers.append(Layer(name, (out, inputs), shown, _bytes(module), kept))
    named = (*model.named_parameters(), *model.named_buffers())
    values = sum(t.numel() for n, t in named if not n.endswith("weight_scale"))
    return PrecisionReport(precision or "bf16", tuple(layers), _bytes(model), 2 * values)


def _bytes(module: nn.Module) -> int:
    return sum(_nbytes(t) for t in (*module.parameters(), *module.buffers()))


def _nbytes(tensor: torch.Tensor) -> int:
    """Storage of a tensor, or of the parts of one of torchao's."""
    if hasattr(tensor, "__tensor_flatten__"):
        names, _ = tensor.__tensor_flatten__()
        return sum(_nbytes(getattr(tensor, n)) for n in names)
    return int(tensor.numel() * tensor.element_size())
