"""Parity of the sampler and of the training schedule."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file

from wam_ros.wam import flow_match
from wam_ros.wam.parity.result import Result, close, exact
from wam_ros.wam.unipc import UniPC, make_schedule


def _run(sampler: UniPC, x: torch.Tensor, velocities: torch.Tensor) -> torch.Tensor:
    sampler.reset()
    rows = []
    for velocity in velocities:
        x = sampler.step(velocity, x)
        rows.append(x)
    return torch.stack(rows)


def case_unipc(golden: Path) -> Iterator[Result]:
    """Every recorded run: fp32 tightly, bf16 bit for bit, levels and timesteps exactly.

    The final level of a rescaled schedule is not part of its name; it is read from the data.
    """
    data = load_file(golden / "unipc.safetensors")
    names = sorted(key.removesuffix(".sigmas") for key in data if key.endswith(".sigmas"))
    for name in names:
        recorded = data[f"{name}.sigmas"]
        steps = len(data[f"{name}.timesteps"])
        schedule = make_schedule(steps, final_noise=float(f"{float(recorded[-1]):.6g}"))
        yield exact(f"unipc/{name}.sigmas", schedule.sigmas, recorded)
        timesteps = torch.tensor(schedule.timesteps)
        yield exact(f"unipc/{name}.timesteps", timesteps, data[f"{name}.timesteps"])
        sampler = UniPC(schedule)
        for infix in ("", "act."):
            if f"{name}.{infix}x" not in data:
                continue
            ours = _run(sampler, data[f"{name}.{infix}x0"], data[f"{name}.{infix}v"])
            reference = data[f"{name}.{infix}x"]
            if reference.dtype == torch.float32:
                yield close(f"unipc/{name}.{infix}x", ours, reference, 1e-6)
            else:
                yield exact(f"unipc/{name}.{infix}x", ours, reference)


def case_flow_match(golden: Path) -> Iterator[Result]:
    """Levels, timesteps and weights of the training schedule, and one noising example."""
    data = load_file(golden / "flow_match_train.safetensors")
    schedule = flow_match.training_schedule(len(data["sigmas"]))
    for name in ("sigmas", "timesteps", "weights"):
        yield close(f"flow_match/{name}", getattr(schedule, name), data[name], 1e-6)
    x, noise, index = data["in.x"], data["in.noise"], data["in.index"]
    noisy = flow_match.add_noise(schedule, x, noise, index)
    yield close("flow_match/noisy", noisy, data["out.noisy"], 1e-6)
    yield close("flow_match/target", flow_match.velocity_target(x, noise), data["out.target"], 1e-6)
    yield close("flow_match/weight", schedule.weights[index], data["out.weight"], 1e-6)
