"""One call on a GPU machine: check the numbers, then time the 14B shape, and keep both.

    python benchmarks/gpu_suite.py --budget 540
    python benchmarks/gpu_suite.py --only bf16-1step --only fp8-1step
    python benchmarks/gpu_suite.py --device cpu --size tiny --chunks 3     (a dry run)

Checks come first, on small models: CUDA graphs equal plain calls bit for bit; every attention
kernel, bf16 and fp8 agree with float32 on the CPU; the three fp8 products agree. A failed check
ends the run, because a wrong model's speed is of no interest. Each timing is a process of its own
(`chunk_latency.py`), so that peak memory is its own and one that fails leaves the others. Results
go to ``benchmarks/results/<device>/`` as JSON and a table in Markdown.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from common import machine
from gpu_checks import checks
from roofline import device_name

from wam_ros.wam import synthetic
from wam_ros.wam.attention import BACKENDS

HERE = Path(__file__).resolve().parent
REGIMES = {
    "8of16": ["--steps", "16", "--dit-steps", "8"],
    "4steps": ["--steps", "4"],
    "1step": ["--steps", "1"],
}


def plan(o: argparse.Namespace) -> dict[str, list[str]]:
    """Name -> arguments of `chunk_latency.py`."""
    runs = {}
    cuda = o.device.startswith("cuda")
    fast = ["--graphs", "--compile", o.compile, "--attention", o.attention] if cuda else []
    for cadence in ("sync", "sliding"):
        for regime, steps in REGIMES.items():
            for precision in ("bf16", "fp8"):
                name = f"{precision}-{regime}" + ("" if cadence == "sync" else "-sliding")
                runs[name] = [
                    "--size",
                    o.size,
                    "--device",
                    o.device,
                    "--precision",
                    precision,
                    *steps,
                    "--cadence",
                    cadence,
                    "--cfg",
                    "on",
                    *fast,
                    "--chunks",
                    str(o.chunks),
                ]
    # Shortest first, so that a tight budget still gives the most figures.
    order = {"1step": 0, "4steps": 1, "8of16": 2}
    return dict(sorted(runs.items(), key=lambda x: order[x[0].split("-")[1]]))


def table(results: dict[str, dict[str, Any]]) -> list[str]:
    """Markdown rows."""
    rows = [
        "| run | chunks | p50 ms | p95 | p99 | VAE | prefill | denoise | steps | TFLOP/s "
        "| of measured GEMM rate | peak GB |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, r in results.items():
        if "failed" in r:
            rows.append(f"| {name} | failed: {r['failed']} |" + " |" * 10)
            continue
        t, s = r["latency_ms"], r["stages_ms"]
        short = "" if r["chunks"] >= 400 else " (few)"
        stages = " | ".join(
            f"{s[n]['p50']:.1f}" if n in s else "" for n in ("vae", "prefill", "denoise")
        )
        rows.append(
            f"| {name} | {r['chunks']}{short} | {t['p50']:.1f} | {t['p95']:.1f} | {t['p99']:.1f} | "
            f"{stages} | {r['computed_steps']['max']} | {r['achieved_tflops'] or 0:.0f} | "
            f"{r['share_of_roofline'] or 0:.0%} | {r['peak_memory_gb']:.1f} |"
        )
    return rows


def main() -> int:
    """Entry point; 1 if a check misses."""
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--device", default="cuda")
    p.add_argument("--size", choices=synthetic.SIZES, default="14b")
    p.add_argument("--chunks", type=int, default=400)
    p.add_argument("--budget", type=float, default=0.0, metavar="S", help="start nothing after")
    p.add_argument("--only", action="append", metavar="RUN", help="these timings (repeatable)")
    p.add_argument("--skip-checks", action="store_true")
    p.add_argument("--attention", choices=tuple(BACKENDS), default="cudnn")
    p.add_argument(
        "--compile", choices=("off", "default", "max-autotune-no-cudagraphs"), default="default"
    )
    p.add_argument("--out", type=Path, default=HERE / "results")
    o = p.parse_args()
    if o.device.startswith("cuda") and not torch.cuda.is_available():
        print(
            "no CUDA device here; --device cpu --size tiny --chunks 3 is a dry run", file=sys.stderr
        )
        return 2
    begin = time.monotonic()
    name = device_name(o.device)
    folder = o.out / re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    folder.mkdir(parents=True, exist_ok=True)
    found = [] if o.skip_checks else checks(o.device)
    if any(f["note"] and f["check"].startswith(f"attention {o.attention} ") for f in found):
        print(f"attention {o.attention} does not run here: timing with sdpa")
        o.attention = "sdpa"
    runs = plan(o)
    if unknown := set(o.only or ()) - set(runs):
        print(f"no run {', '.join(unknown)}; there are {', '.join(runs)}", file=sys.stderr)
        return 2
    if not all(f["ok"] for f in found):
        print("a check misses: nothing is timed", file=sys.stderr)
        _write(folder, name, found, {})
        return 1
    results: dict[str, dict[str, Any]] = {}
    for run, arguments in runs.items():
        if o.only and run not in o.only:
            continue
        left = o.budget - (time.monotonic() - begin) if o.budget else 0.0
        if o.budget and left < 30:
            results[run] = {"failed": "no time left in --budget"}
            continue
        results[run] = _run(run, arguments, folder, left)
        _write(folder, name, found, results)
    _write(folder, name, found, results)
    return 0


def _run(run: str, arguments: list[str], folder: Path, left: float) -> dict[str, Any]:
    """One timing in a process of its own."""
    file = folder / f"{run}.json"
    command = [sys.executable, str(HERE / "chunk_latency.py"), *arguments, "--json", str(file)]
    if left:
        # Loading, warming up and measuring the machine's products take a share of it.
        command += ["--time-limit", str(max(5.0, left / 2))]
    print(f"\n{run}", flush=True)
    try:
        done = subprocess.run(command, timeout=left or None, stderr=subprocess.PIPE, text=True)
    except subprocess.TimeoutExpired:
        return {"failed": "did not end within the budget"}
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        print("\n".join(lines[-5:]), file=sys.stderr)
        return {"failed": lines[-1][:120].replace("|", "/")}
    data: dict[str, Any] = json.loads(file.read_text())
    return data


def _write(
    folder: Path, name: str, found: list[dict[str, Any]], results: dict[str, dict[str, Any]]
) -> None:
    """The table, and the checks as JSON."""
    facts = {"device": name, "torch": torch.__version__, "cuda": torch.version.cuda, **machine()}
    (folder / "checks.json").write_text(json.dumps({"machine": facts, "checks": found}, indent=1))
    lines = [
        f"# {name}",
        "",
        "Speed results, random weights. "
        + ", ".join(f"{k} {v}" for k, v in facts.items() if k in ("torch", "cuda", "python", "cpu"))
        + ".",
        "",
    ]
    lines += [
        f"* {'ok' if f['ok'] else 'MISS'}: {f['check']}, {f['error']:.2g} (limit {f['limit']:g})"
        + (f"; {f['note']}" if f["note"] else "")
        for f in found
    ]
    lines += ["", *table(results), ""]
    lines.append("Latency is what a robot waits for after the last frame; p50 of stages.")
    (folder / "README.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())
