"""Checks of `gpu_suite`: the same small model on the CPU, on the GPU, and in every way it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from wam_ros.wam import synthetic
from wam_ros.wam.attention import BACKENDS, attention_backend
from wam_ros.wam.compiling import compile_blocks
from wam_ros.wam.graphs import EagerRecorder, GraphedBranches
from wam_ros.wam.head import CallOptions, PolicyHead, seeded_noise
from wam_ros.wam.precision import apply_precision
from wam_ros.wam.precision.fp8 import KERNELS, best_kernel, product, quantize_rows
from wam_ros.wam.savings import Savings

# Measured on random weights of the small model on a CPU: bf16 0.006, fp8 0.027.
LIMITS = {"bf16": 0.05, "fp8": 0.12}


def actions(device: str, dtype: torch.dtype, how: str = "", attention: str = "sdpa") -> Any:
    """Actions of a window and a half of the small model, on the CPU in float64."""
    config = synthetic.config_of("small")
    dit = synthetic.random_dit("small", device="cpu").to(device)
    if "fp8" in how:
        apply_precision(dit, "fp8", dtype)
    dit.to(dtype)
    dit.attend = attention_backend(attention)
    savings = Savings.all()
    text, image, vae = synthetic.random_encoders(config, dtype)

    # Drawn on the CPU: a GPU's generator gives other numbers.
    def noise(shape: Any, kind: torch.dtype, where: torch.device) -> torch.Tensor:
        drawn = seeded_noise(7)(shape, torch.float32, torch.device("cpu"))
        return drawn.to(where, kind)

    negative = synthetic.prompt(config, 1)
    encoders = (_TextOnCpu(text), _ImageOnCpu(image), _VaeOnCpu(vae))
    head = PolicyHead(config, dit, *encoders, negative, savings, noise=noise)
    if "compile" in how:
        compile_blocks(dit)
    if "graphs" in how:
        recorder = None if device.startswith("cuda") else EagerRecorder()
        head.branches = GraphedBranches(dit, savings, recorder=recorder)
    out = []
    for k in range(6):
        images = synthetic.clip(config, 8 if k else 1, 8 * k)
        prompt, state = synthetic.prompt(config, 2), synthetic.state(config, k)
        out.append(head.call(images, *prompt, state, CallOptions(4)).action.double().cpu())
    return torch.stack(out)


class _TextOnCpu:
    """Stand-in encoders draw from the CPU's generator, so that all devices see one input."""

    def __init__(self, text: Any) -> None:
        self._text = text

    def __call__(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self._text(ids.cpu(), mask.cpu()).to(ids.device)


class _ImageOnCpu(torch.nn.Module):
    def __init__(self, image: Any) -> None:
        super().__init__()
        self._image = image

    def encode(self, frames: torch.Tensor) -> torch.Tensor:
        return self._image.encode(frames.cpu()).to(frames.device)


class _VaeOnCpu:
    def __init__(self, vae: Any) -> None:
        self._vae = vae

    def stream(self) -> _StreamOnCpu:
        return _StreamOnCpu(self._vae.stream())

    def encode(self, video: torch.Tensor) -> torch.Tensor:
        return self.stream().push(video)

    def decode_parts(self, latents: torch.Tensor) -> Iterator[torch.Tensor]:
        return self._vae.decode_parts(latents)


class _StreamOnCpu:
    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def push(self, frames: torch.Tensor) -> torch.Tensor:
        return self._stream.push(frames.cpu()).to(frames.device)


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    """Relative L2 distance of ``a`` from ``b``."""
    return float((a - b).norm() / b.norm())


def products(device: str) -> float:
    """Largest disagreement of the fp8 products, at odd row counts too."""
    g = torch.Generator().manual_seed(0)
    worst = 0.0
    for rows in (1, 25, 1785):
        x, sx = quantize_rows(torch.randn(rows, 512, generator=g).to(device))
        w, sw = quantize_rows(torch.randn(256, 512, generator=g).to(device))
        bias = torch.randn(256, generator=g).to(device, torch.bfloat16)
        exact = (x.double() * sx) @ (w.double() * sw).t() + bias.double()
        for kernel in KERNELS:
            if kernel == "rowwise" and best_kernel(torch.device(device)) != "rowwise":
                continue
            out = product(kernel, x, sx, w, sw, bias, torch.bfloat16)
            worst = max(worst, relative(out.double(), exact))
    return worst


def checks(device: str) -> list[dict[str, Any]]:
    """All checks with error and limit."""
    truth = actions("cpu", torch.float32)
    bf16 = torch.bfloat16
    plain = actions(device, bf16)
    plan: list[tuple[str, Callable[[], float], float]] = [
        # bf16 rounds to 1/256; Hopper's fast sums add a little.
        ("fp8 products against float64", lambda: products(device), 5e-3),
        (
            "float32 on this device against CPU",
            lambda: relative(actions(device, torch.float32), truth),
            1e-2,
        ),
        ("bf16 against float32", lambda: relative(plain, truth), LIMITS["bf16"]),
        (
            "fp8 against float32",
            lambda: relative(actions(device, bf16, "fp8"), truth),
            LIMITS["fp8"],
        ),
        ("graphs equal plain, bf16", lambda: relative(actions(device, bf16, "graphs"), plain), 0.0),
        (
            "graphs equal plain, fp8",
            lambda: relative(actions(device, bf16, "fp8 graphs"), actions(device, bf16, "fp8")),
            0.0,
        ),
    ]
    if device.startswith("cuda"):
        plan.append(
            (
                "compiled, fp8, graphs against float32",
                lambda: relative(actions(device, bf16, "fp8 compile graphs"), truth),
                LIMITS["fp8"],
            )
        )
        plan += [
            (
                f"attention {name} against float32",
                lambda name=name: relative(  # type: ignore[misc]
                    actions(device, bf16, attention=name), truth
                ),
                LIMITS["bf16"],
            )
            for name in BACKENDS
            if name != "sdpa"
        ]
    found = []
    for name, run, limit in plan:
        try:
            error, note = run(), ""
        except RuntimeError as problem:
            error, note = float("nan"), str(problem).splitlines()[0][:120]
        # A kernel that this GPU lacks is a gap in the table, not a wrong number.
        absent = name.startswith("attention") and bool(note)
        ok = absent or error <= limit
        found.append({"check": name, "error": error, "limit": limit, "ok": ok, "note": note})
        print(
            f"{'ok  ' if ok else 'MISS'} {name}: {error:.3g} (limit {limit:g}) {note}", flush=True
        )
    return found
