"""What is wrong with a checkpoint, in words that name the file, the tensors and the way out."""

from __future__ import annotations

from collections.abc import Sequence

SHOWN = 6
"""Tensors named per kind of problem before the rest is only counted."""


class CheckpointError(ValueError):
    """A checkpoint is incomplete, damaged, or of another model."""


def listing(names: Sequence[str], shown: int = SHOWN) -> str:
    """Names one per line, the surplus counted."""
    lines = [f"    {name}" for name in names[:shown]]
    if len(names) > shown:
        lines.append(f"    ... and {len(names) - shown} more")
    return "\n".join(lines)
