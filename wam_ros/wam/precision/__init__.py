"""Weights and activations in fewer bits: what is replaced, how, and what that costs in accuracy."""

from wam_ros.wam.precision.apply import (
    PRECISIONS,
    PrecisionError,
    PrecisionReport,
    apply_precision,
    describe,
    prepare,
)

__all__ = [
    "PRECISIONS",
    "PrecisionError",
    "PrecisionReport",
    "apply_precision",
    "describe",
    "prepare",
]
