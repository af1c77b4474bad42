"""What a parity case yields, and the error measure it uses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


class Unavailable(RuntimeError):
    """A case that cannot run here; says what to install."""


@dataclass(frozen=True)
class Result:
    """Outcome of one comparison.

    Attributes
    ----------
    name
        Which piece and which entry, for example ``dit_train/out.video``.
    error
        Relative L2 error for floats; number of differing elements for exact comparisons.
    limit
        Largest error that still passes.
    ok
        ``error <= limit``.
    detail
        Shape, counts or the reason for a miss.
    """

    name: str
    error: float
    limit: float
    ok: bool
    detail: str = ""


def relative_l2(ours: torch.Tensor, reference: torch.Tensor) -> float:
    """``||a - b|| / ||b||`` in float64; infinite where shapes differ or a value is not finite."""
    import torch

    if ours.shape != reference.shape:
        return float("inf")
    a, b = ours.detach().double().cpu(), reference.double().cpu()
    if not bool(torch.isfinite(a).all()):
        return float("inf")
    scale = float(b.norm())
    return float((a - b).norm()) / (scale if scale > 0 else 1.0)


def close(name: str, ours: torch.Tensor, reference: torch.Tensor, limit: float) -> Result:
    """Compare by relative L2 error."""
    error = relative_l2(ours, reference)
    if ours.shape != reference.shape:
        detail = f"shape {tuple(ours.shape)}, expected {tuple(reference.shape)}"
    else:
        detail = f"shape {tuple(reference.shape)}"
    return Result(name, error, limit, error <= limit, detail)


def exact(name: str, ours: torch.Tensor, reference: torch.Tensor) -> Result:
    """Compare element by element; the error is the number of elements that differ."""
    if ours.shape != reference.shape:
        detail = f"shape {tuple(ours.shape)}, expected {tuple(reference.shape)}"
        return Result(name, float("inf"), 0.0, False, detail)
    differing = int((ours.cpu() != reference.cpu()).sum())
    detail = f"shape {tuple(reference.shape)}, exact"
    return Result(name, float(differing), 0.0, differing == 0, detail)
