"""What the machine's matrix products reach, measured, as the yardstick of a forward."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from pathlib import Path

import torch


def device_name(device: str) -> str:
    """GPU name with driver-visible memory, or the processor."""
    if device.startswith("cuda"):
        p = torch.cuda.get_device_properties(device)
        return f"{p.name} ({p.total_memory / 2**30:.0f} GiB)"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return f"{line.partition(':')[2].strip()}, {torch.get_num_threads()} threads"
    return platform.processor() or "CPU"


def _rate(run: Callable[[], object], work: float, device: str, seconds: float) -> float:
    """Best operations per second over about ``seconds``."""

    def now() -> float:
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        return time.perf_counter()

    run()
    best, end = 0.0, now() + seconds
    while True:
        start = now()
        for _ in range(4):
            run()
        stop = now()
        best = max(best, 4 * work / (stop - start))
        if stop > end:
            return best


def gemm_rates(
    device: str, dtype: torch.dtype, precision: str, quick: bool = False
) -> dict[str, float]:
    """Operations per second of large square products: ``plain`` in ``dtype``, and ``linear``.

    ``linear`` is the rate of the precision's own kernel where it has a faster one (fp8).
    """
    n, seconds = (1024, 0.2) if quick else (8192, 2.0)
    work = 2.0 * n**3
    a = torch.randn(n, n, device=device).to(dtype)
    b = torch.randn(n, n, device=device).to(dtype)
    rates = {"plain": _rate(lambda: a @ b, work, device, seconds)}
    if precision == "fp8":
        from wam_ros.wam.precision.fp8 import best_kernel, product, quantize_rows

        kernel = best_kernel(torch.device(device))
        x, sx = quantize_rows(a)
        w, sw = quantize_rows(b)

        def run() -> object:
            return product(kernel, x, sx, w, sw, None, torch.bfloat16)

        rates["linear"] = _rate(run, work, device, seconds)
    return rates


def ideal_seconds(rates: dict[str, float], linear: float, attention: float) -> float:
    """Time of a forward if linears ran at their product's rate and attention at the plain one."""
    return linear / rates.get("linear", rates["plain"]) + attention / rates["plain"]
