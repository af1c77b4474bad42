"""Time from a complete observation to a chunk of actions, on this machine.

Random weights by default: a speed result, which says nothing about a policy. What is done while the
robot moves (encoding early frames, conditioning of later blocks) is not part of the latency and is
reported apart. Warm-up (two windows: compilation, recording of graphs) is left out; resets are not.

    python benchmarks/chunk_latency.py --quick
    python benchmarks/chunk_latency.py --size 14b --precision fp8 --steps 16 --dit-steps 8
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import os
import resource
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from common import arguments, finish, spread
from roofline import device_name, gemm_rates, ideal_seconds

from wam_ros.wam import flops, synthetic
from wam_ros.wam.attention import BACKENDS, attention_backend
from wam_ros.wam.branches import Branches, LocalBranches
from wam_ros.wam.checkpoint.load import Networks, load
from wam_ros.wam.compiling import MODES, compile_blocks
from wam_ros.wam.config import WamConfig
from wam_ros.wam.distributed import Pair
from wam_ros.wam.graphs import GraphedBranches
from wam_ros.wam.head import CallOptions, CallResult, PolicyHead
from wam_ros.wam.precision import PRECISIONS, describe
from wam_ros.wam.savings import Savings

REPORTED_CHUNKS = 400
"""Fewer chunks than this give a rough figure, and say so."""


def options_parser() -> argparse.ArgumentParser:
    """The command line."""
    p = arguments(__doc__ or "")
    p.formatter_class = argparse.RawDescriptionHelpFormatter
    p.add_argument("--size", choices=synthetic.SIZES, default="small")
    p.add_argument("--layers", type=int, default=0, help="cut the transformer to so many blocks")
    p.add_argument("--checkpoint", type=Path, help="weights of this folder instead of random ones")
    p.add_argument("--encoders", choices=("real", "none"), default="real", help="VAE, text, image")
    p.add_argument("--precision", choices=PRECISIONS, default="bf16")
    p.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    p.add_argument("--steps", type=int, default=16, help="sampler steps: 16, 8, 4, 1")
    p.add_argument("--dit-steps", type=int, default=8, help="of 16, how many run the transformer")
    p.add_argument("--cfg", choices=("on", "off", "batched", "two-ranks"), default="on")
    p.add_argument("--cadence", choices=("sync", "sliding"), default="sync")
    p.add_argument("--history", type=int, choices=(0, 1), default=0, help="blocks, for sliding")
    p.add_argument("--frames", type=int, choices=(4, 8), default=8, help="per continuing call")
    p.add_argument("--rows", type=int, default=0, help="action rows per chunk, 24 or 48")
    p.add_argument("--want-video", action="store_true", help="imagined latents are wanted too")
    p.add_argument("--savings", choices=("all", "none"), default="all")
    p.add_argument("--attention", choices=tuple(BACKENDS), default="sdpa")
    p.add_argument("--compile", choices=("off", *MODES), default="off", help="the blocks' regions")
    p.add_argument("--graphs", action="store_true", help="CUDA graphs, one per cache position")
    p.add_argument("--chunks", type=int, default=REPORTED_CHUNKS)
    p.add_argument("--time-limit", type=float, default=0.0, metavar="S", help="stop earlier")
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    p.add_argument("--threads", type=int, default=0)
    return p


def savings_of(o: argparse.Namespace) -> Savings:
    """The switches that the options ask for."""
    if o.savings == "none":
        return Savings.none()
    return dataclasses.replace(Savings.all(), batched_cfg=o.cfg == "batched")


def random_arguments(o: argparse.Namespace, device: str) -> dict[str, Any]:
    """What `synthetic.random_dit` takes; another process is given the same."""
    names = ("size", "seed", "dtype", "precision", "layers", "rows")
    return {"device": device, **{n: getattr(o, n) for n in names}}


def make_networks(o: argparse.Namespace) -> tuple[WamConfig, Networks]:
    """The model on the device, and what it is."""
    dtype = getattr(torch, o.dtype)
    if o.checkpoint:
        loaded = load(o.checkpoint, device=o.device, dtype=dtype, precision=o.precision)
        return loaded.config, loaded.networks
    config = synthetic.config_of(o.size, o.layers, o.rows)
    if o.encoders == "none":
        dit = synthetic.random_dit(**random_arguments(o, o.device))
        text, image, vae = synthetic.random_encoders(config, dtype)
        return config, Networks(dit, text, image, vae)  # type: ignore[arg-type]
    return config, synthetic.random_networks(config, o.seed, o.device, dtype, o.precision)


class Runner:
    """A policy head that is called as a session calls it, and timed."""

    def __init__(self, o: argparse.Namespace) -> None:
        self.o, self.savings = o, savings_of(o)
        self.config, networks = make_networks(o)
        self.report = describe(networks.dit, o.precision)
        self.pair: Pair | None = None
        negative = synthetic.prompt(self.config, 1)
        dit = networks.dit
        dit.attend = attention_backend(o.attention)
        self.head = PolicyHead(
            self.config,
            dit,
            networks.text,
            networks.image,
            networks.vae,
            negative,
            self.savings,
            branches=_Late(),
            synchronize=True,
        )
        # The head has fused the projections by now: compiling and recording come after.
        if o.compile != "off":
            compile_blocks(dit, o.compile)
        self.head.branches = self._branches()
        guidance = 1.0 if o.cfg == "off" else self.config.head.cfg_scale
        self.options = CallOptions(o.steps, o.dit_steps, guidance=guidance, want_video=o.want_video)
        self.tokens = synthetic.prompt(self.config, 2)
        self.state = synthetic.state(self.config)
        self.index = 0

    def _branches(self) -> Branches:
        o, dit = self.o, self.head.dit
        if o.cfg == "two-ranks":
            other = "cuda:1" if o.device.startswith("cuda") else o.device
            factory, given = "wam_ros.wam.synthetic:random_dit", random_arguments(o, other)
            if o.checkpoint:
                factory = "wam_ros.wam.peer:checkpoint_dit"
                given = {"folder": str(o.checkpoint), "device": other}
                given |= {"dtype": o.dtype, "precision": o.precision}
            self.pair = Pair(factory, given, self.savings, o.device)
            return self.pair.branches(dit, self.savings, deadline_s=120.0)
        kind = GraphedBranches if o.graphs else LocalBranches
        return kind(dit, self.savings)

    def _now(self) -> float:
        if self.o.device.startswith("cuda"):
            torch.cuda.synchronize()
        return time.perf_counter()

    def _idle(self) -> float:
        """What a session does between calls; seconds."""
        start = self._now()
        while self.head.finish_conditioning():
            pass
        return self._now() - start

    def chunk(self) -> tuple[CallResult, dict[str, float]]:
        """One chunk, with seconds per stage: ``latency`` is the sum that a robot waits for."""
        sliding = self.o.cadence == "sliding"
        k, o = self.index, self.o
        self.index += 1
        times: dict[str, float] = {}
        # As a session sees it: frames have arrived and wait on the CPU.
        first = k == 0 or (sliding and not o.history)
        images = synthetic.clip(self.config, 1 if first else o.frames, (8 * k) % 96)
        staged = None
        if not first and not sliding and self.savings.staged_vae:
            staged = self._stage(images, times)
        start = self._now()
        if sliding and o.history:
            opening = synthetic.clip(self.config, 1, max(0, 8 * k - 8) % 96)
            times["open"] = sum(self.head.open_window(opening, *self.tokens).values())
        latents = None
        if staged is not None:
            with torch.no_grad():
                for i in range(self._early, images.shape[1]):
                    staged.push(self.head.prepare(images[:, i : i + 1]))
            latents = staged.latents()
            times["vae"] = self._now() - start
        result = self.head.call(images, *self.tokens, self.state, self.options, staged=latents)
        result.action.float().cpu()
        times["latency"] = self._now() - start
        for name, seconds in result.seconds.items():
            times[name] = times.get(name, 0.0) + seconds
        known = sum(v for n, v in times.items() if n not in ("latency", "early"))
        times["other"] = times["latency"] - known
        if not sliding:
            times["idle"] = self._idle()
        return result, times

    def _stage(self, images: torch.Tensor, times: dict[str, float]) -> Any:
        """Encode what a session would have encoded before the last frame came."""
        will_reset = self.head.next_frame >= self.config.dit.local_attn_size > 0
        if will_reset:
            return None
        staged = self.head.stage(images.shape[1])
        start = self._now()
        # All but the last: the last group of four becomes complete with the last frame.
        self._early = images.shape[1] - 1
        with torch.no_grad():
            for i in range(self._early):
                staged.push(self.head.prepare(images[:, i : i + 1]))
        times["early"] = self._now() - start
        return staged

    def close(self) -> None:
        """End the second rank."""
        if self.pair:
            self.pair.close()


class _Late:
    """Stands in while a head is built, before there is a runner of branches."""

    forwards = (0, 0)


def transformer_flops(c: WamConfig, r: CallResult, s: Savings) -> list[tuple[float, float]]:
    """(linear, attention) operations of every forward that ran in a call."""
    d, k = c.dit, c.dit.num_frame_per_block
    per_frame = d.frame_seqlen
    cached = r.cached_tokens // per_frame
    frames = r.observed.shape[2]
    cost_prefill = flops.forward(d, frames, cached - frames, False)
    cost_step = flops.forward(d, k, cached, True)

    def split(f: flops.Forward) -> tuple[float, float]:
        linear = f.linear
        if not s.cache_context:
            linear += f.context_kv + f.context_embedding
        if not s.shared_time:
            linear += f.time
        return linear, f.self_attention + f.context_scores

    return [split(cost_prefill)] * sum(r.prefills) + [split(cost_step)] * sum(r.denoises)


def measure(o: argparse.Namespace) -> dict[str, Any]:
    """Run the benchmark; returns the figures."""
    if o.device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
    runner = Runner(o)
    try:
        return _measure(o, runner)
    finally:
        runner.close()


def _measure(o: argparse.Namespace, runner: Runner) -> dict[str, Any]:
    config, cuda = runner.config, o.device.startswith("cuda")
    window = len(flops.window_calls(config.dit))
    begin = time.monotonic()
    for _ in range(2 * window if o.cadence == "sync" else 3):
        runner.chunk()
    warm_up = time.monotonic() - begin
    rates = gemm_rates(o.device, getattr(torch, o.dtype), o.precision, quick=not cuda)
    gc.collect()
    stages: dict[str, list[float]] = defaultdict(list)
    by_position: dict[int, list[float]] = defaultdict(list)
    work, ideal, computed, busy, resets = 0.0, 0.0, [], 0.0, 0
    begin = time.monotonic()
    for _ in range(o.chunks):
        result, times = runner.chunk()
        for name, seconds in times.items():
            stages[name].append(seconds)
        position = result.cached_tokens // config.dit.frame_seqlen
        by_position[position].append(times["latency"])
        forwards = transformer_flops(config, result, runner.savings)
        work += sum(a + b for a, b in forwards)
        ideal += sum(ideal_seconds(rates, *f) for f in forwards)
        busy += times["prefill"] + times["denoise"] + times.get("open", 0.0)
        computed.append(len(result.timesteps))
        resets += bool(result.reset)
        if o.time_limit and time.monotonic() - begin > o.time_limit:
            break
    done = len(computed)
    peak = (
        torch.cuda.max_memory_allocated()
        if cuda
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )
    # Work of opening a sliding window is not counted, so its share would be too low.
    countable = "open" not in stages
    return {
        "model": config.name,
        "weights": "checkpoint" if o.checkpoint else "random",
        "settings": {k: str(v) if isinstance(v, Path) else v for k, v in vars(o).items()},
        "chunks": done,
        "resets": resets,
        "warm_up_s": round(warm_up, 2),
        "latency_ms": spread(stages["latency"], 1e3),
        "latency_by_cached_frames_ms": {
            str(p): spread(v, 1e3) for p, v in sorted(by_position.items())
        },
        "stages_ms": {n: spread(v, 1e3) for n, v in stages.items() if n != "latency"},
        "computed_steps": {"min": min(computed), "max": max(computed)},
        "transformer_tflop_per_chunk": work / done / 1e12 if countable else None,
        "achieved_tflops": work / busy / 1e12 if countable else None,
        "measured_gemm_tflops": {k: v / 1e12 for k, v in rates.items()},
        "share_of_roofline": ideal / busy if countable else None,
        "weights_gb": runner.report.bytes / 1e9,
        "peak_memory_gb": peak / 1e9,
        "device": device_name(o.device),
        "torch": torch.__version__,
    }


def show(r: dict[str, Any]) -> None:
    """Print the figures."""
    s = r["settings"]
    label = "speed result, random weights" if r["weights"] == "random" else "checkpoint"
    cut = "" if not s["layers"] else f", cut to {s['layers']} layers"
    print(f"{r['model']}{cut} on {r['device']}: {label}")
    bits = s["dtype"] if s["precision"] == "bf16" else f"{s['precision']} over {s['dtype']}"
    print(
        f"  {bits}, {s['steps']} steps, CFG {s['cfg']}, "
        f"{s['cadence']}, attention {s['attention']}, compile {s['compile']}, "
        f"graphs {'on' if s['graphs'] else 'off'}"
    )
    few = "" if r["chunks"] >= REPORTED_CHUNKS else f" (a reported figure takes {REPORTED_CHUNKS})"
    print(f"  {r['chunks']} chunks{few}, {r['resets']} of them window starts, warm-up excluded")
    for name, v in (("latency", r["latency_ms"]), *r["stages_ms"].items()):
        note = {"early": "before the last frame", "idle": "after the chunk is out"}.get(name, "")
        print(
            f"  {name:10s} p50 {v['p50']:9.2f}  p95 {v['p95']:9.2f}  p99 {v['p99']:9.2f} ms  {note}"
        )
    for position, v in r["latency_by_cached_frames_ms"].items():
        print(f"  {position} cached frames: p50 {v['p50']:.2f} ms, n {v['n']}")
    c = r["computed_steps"]
    print(f"  computed steps {c['min']} to {c['max']}, peak memory {r['peak_memory_gb']:.2f} GB")
    if r["achieved_tflops"] is not None:
        gemm = ", ".join(f"{k} {v:.3g}" for k, v in r["measured_gemm_tflops"].items())
        print(
            f"  transformer {r['transformer_tflop_per_chunk']:.4g} TFLOP per chunk, "
            f"{r['achieved_tflops']:.3g} TFLOP/s, {r['share_of_roofline']:.1%} of what the matrix "
            f"products of this machine reach ({gemm} TFLOP/s)"
        )


def main() -> int:
    """Entry point."""
    o = options_parser().parse_args()
    if o.quick:
        o.size, o.chunks = "tiny", min(o.chunks, 12)
        o.time_limit = o.time_limit or 20.0
    if o.threads:
        torch.set_num_threads(o.threads)
    if o.graphs and not o.device.startswith("cuda"):
        print("--graphs needs a CUDA device; leave it out here", file=sys.stderr)
        return 2
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    result = measure(o)
    show(result)
    finish(o, result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
