"""Parity of merging LoRA adapters."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from wam_ros.wam.checkpoint.layout import PREFIXES
from wam_ros.wam.checkpoint.lora import adapters, merge
from wam_ros.wam.parity.golden import file_metadata, tensors
from wam_ros.wam.parity.result import Result, close

MERGED = 1e-6


def case_lora(golden: Path) -> Iterator[Result]:
    """Every adapter of the file merged onto its base weight; the rest of the base untouched."""
    name = "lora.safetensors"
    data = tensors(golden, name)
    alpha = float(file_metadata(golden, name)["alpha"])
    stored = {k[len("lora.") :]: v for k, v in data.items() if k.startswith("lora.")}
    expected = {k[len("merged.") :]: v for k, v in data.items() if k.startswith("merged.")}
    ours = {}
    for weight, adapter in adapters(stored).items():
        plain = weight.removeprefix(PREFIXES["dit"])
        factors = stored[adapter.down], stored[adapter.up]
        ours[plain] = merge(data[f"base.{plain}"], *factors, alpha)
    unlike = sorted(ours.keys() ^ expected.keys())
    detail = f"{len(ours)} weights" + (f", differing: {', '.join(unlike)}" if unlike else "")
    yield Result("lora/weights", float(len(unlike)), 0.0, not unlike, detail)
    for plain in sorted(ours.keys() & expected.keys()):
        yield close(f"lora/{plain}", ours[plain], expected[plain], MERGED)
