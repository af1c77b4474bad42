"""``wam quantize-report``: what a precision costs, as a table."""

from __future__ import annotations

import argparse
import re
from collections import defaultdict
from statistics import median

import torch

from wam_ros.wam import synthetic
from wam_ros.wam.checkpoint.load import Networks, load
from wam_ros.wam.config import WamConfig
from wam_ros.wam.head import CallOptions
from wam_ros.wam.precision.accuracy import AccuracyReport, Difference, accuracy
from wam_ros.wam.precision.sensitive import KEPT

_FEW_LAYERS = 60


def _model(args: argparse.Namespace, dtype: torch.dtype) -> tuple[WamConfig, Networks]:
    if args.folder:
        loaded = load(args.folder, args.base, args.device, dtype)
        return loaded.config, loaded.networks
    config = synthetic.config_of(args.random, args.layers)
    name = str(dtype).removeprefix("torch.")
    dit = synthetic.random_dit(args.random, args.seed, args.device, name, layers=args.layers)
    text, image, vae = synthetic.random_encoders(config, dtype)
    return config, Networks(dit, text, image, vae)  # type: ignore[arg-type]


def run(args: argparse.Namespace) -> AccuracyReport:
    """Measure what the command line asks for.

    Raises
    ------
    ValueError
        Unless exactly one of a folder and ``--random`` is given.
    """
    if bool(args.folder) == bool(args.random):
        raise ValueError("give either a checkpoint folder or --random SIZE")
    if args.threads:
        torch.set_num_threads(args.threads)
    config, networks = _model(args, getattr(torch, args.reference))
    options = CallOptions(args.steps, args.dit_steps)
    return accuracy(config, networks, args.precision, options, args.seed)


def render(r: AccuracyReport, random: bool, every_layer: bool = False) -> str:
    """The report as text."""
    weights = "random weights: shows arithmetic, not quality" if random else "checkpoint"
    lines = [f"{r.model} ({weights}), {r.precision} against {r.reference}", ""]
    lines += _layers(r, every_layer)
    head = "".join(f"{f'{p} cached':>22}" for p in r.cached_frames)
    lines += ["", f"{'actions, end to end':34}{head}", f"{'':34}{_columns(r)}"]
    for name, errors in r.actions.items():
        what = "weights and activations bf16" if name == "bf16" else name
        lines.append(f"  {what:32}" + "".join(_cell(errors[p]) for p in r.cached_frames))
    lines.append("imagined latents, end to end")
    for name, errors in r.video.items():
        lines.append(f"  {name:32}" + "".join(_cell(errors[p]) for p in r.cached_frames))
    lines += ["", "bytes of the transformer"]
    for name, size in r.bytes.items():
        share = size / r.bytes["bf16"]
        lines.append(f"  {name:12}{size / 1e6:12.1f} MB  {share:5.0%} of bf16")
    if r.kept:
        lines += ["", f"{r.replaced} linears quantised; {len(r.kept)} and all else kept:"]
        lines += [f"  {re.sub(r'[^a-z_()|]', '', p):28} {reason}" for p, reason in KEPT]
    return "\n".join(lines)


def _columns(r: AccuracyReport) -> str:
    return "".join(f"{'rel. L2':>11}{'1 - cos':>11}" for _ in r.cached_frames)


def _cell(d: Difference | None) -> str:
    return f"{'':22}" if d is None else f"{d.relative:11.2e}{max(0.0, 1 - d.cosine):11.1e}"


def _layers(r: AccuracyReport, every_layer: bool) -> list[str]:
    """A line per layer where they are few, else one per kind with the worst block."""
    if not r.layers:
        return ["no layer by layer comparison for this precision"]
    head = "".join(f"{f'{p} cached':>22}" for p in r.cached_frames)
    if every_layer or len(r.layers) <= _FEW_LAYERS:
        lines = [f"{'layer, on its own':34}{head}", f"{'':34}{_columns(r)}"]
        for name, errors in r.layers.items():
            lines.append(f"  {name:32}" + "".join(_cell(errors.get(p)) for p in r.cached_frames))
        return lines
    kinds: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for name, errors in r.layers.items():
        worst = max(d.relative for d in errors.values())
        kinds[re.sub(r"^blocks\.\d+\.", "", name)].append((worst, name))
    lines = [f"{'layers on their own, rel. L2':34}{'median':>11}{'worst':>11}  where"]
    for kind, found in kinds.items():
        worst, name = max(found)
        lines.append(f"  {kind:32}{median(v for v, _ in found):11.2e}{worst:11.2e}  {name}")
    return lines
