"""Parity of the policy head: successive calls from raw images and tokens, state carried over."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from wam_ros.wam.clip import ImageEncoder
from wam_ros.wam.config import ClipConfig, WamConfig
from wam_ros.wam.dit import CausalDiT
from wam_ros.wam.head import CallOptions, CallResult, PolicyHead
from wam_ros.wam.parity.result import Result, close
from wam_ros.wam.parity.transformer import Tensors, golden_config, weights_of
from wam_ros.wam.savings import Savings
from wam_ros.wam.text import TextEncoder
from wam_ros.wam.vae import VideoVae

_LIMITS = {"fp32": 1e-4, "bf16": 3e-2}
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def policy_config(golden: Path, weights: Tensors) -> WamConfig:
    """Dimensions of the recorded policy, with its latent statistics."""
    mean, std = (tuple(weights[f"vae_{n}"].double().tolist()) for n in ("mean", "std"))
    return golden_config(golden, latents_mean=mean, latents_std=std)


def load_policy(
    golden: Path, dtype: torch.dtype, savings: Savings, calls: Tensors | None = None
) -> PolicyHead:
    """Build the recorded policy: transformer, encoders and the negative prompt."""
    weights = load_file(golden / "policy_weights.safetensors")
    calls = calls or load_file(golden / "policy_calls_fp32.safetensors")
    config = policy_config(golden, weights)
    dit = CausalDiT(config.dit)
    dit.load_state_dict(weights_of(weights, "action_head.model."))
    assert isinstance(config.clip, ClipConfig)
    text, image = TextEncoder(config.t5), ImageEncoder(config.clip)
    vae = VideoVae(config.vae)
    for encoder, prefix in (
        (text, "text_encoder."),
        (image, "image_encoder.model.visual."),
        (vae, "vae.model."),
    ):
        encoder.load_stored(weights_of(weights, f"action_head.{prefix}"))
        encoder.to(dtype)
    dit.to(dtype).eval()
    negative = (calls["in.text_neg"], calls["in.text_neg_mask"])
    return PolicyHead(config, dit, text, image, vae, negative, savings)


def recorded_options(entry: dict[str, Any]) -> CallOptions:
    """Sampling options of a recorded call."""
    final = entry["final_noise"] if entry["decoupled"] else 0.0
    return CallOptions(
        steps=entry["steps"],
        dit_steps=entry["dit_mask"],
        dynamic=entry["dynamic"],
        final_noise=final or 0.0,
    )


def replay_call(
    head: PolicyHead, calls: Tensors, name: str, options: CallOptions, **inputs: Any
) -> CallResult:
    """Repeat a recorded call with its noise."""
    part = weights_of(calls, f"{name}.")
    frames = part["in.images"].shape[1]
    if head.savings.staged_vae and not head.will_reset(part["in.text"], frames):
        clip = head.stage(frames)
        with torch.no_grad():
            for i in range(frames):
                clip.push(head.prepare(part["in.images"][:, i : i + 1]))
            inputs["staged"] = clip.latents()
    return head.call(
        part["in.images"],
        part["in.text"],
        part["in.text_mask"],
        part["in.state"],
        options,
        noise_video=part["mid.noise_video"],
        noise_action=part["mid.noise_action"],
        **inputs,
    )


def case_policy_fp32(golden: Path) -> Iterator[Result]:
    """The plain path in float32: actions, video, caches, conditioning, and what ran."""
    yield from _case(golden, "fp32", Savings.none(), "policy_fp32")


def case_policy_bf16(golden: Path) -> Iterator[Result]:
    """The plain path in bfloat16."""
    yield from _case(golden, "bf16", Savings.none(), "policy_bf16")


def case_policy_fp32_savings(golden: Path) -> Iterator[Result]:
    """All exact savings on, in float32, against the same recorded numbers."""
    yield from _case(golden, "fp32", Savings.all(), "policy_fp32_savings")


def case_policy_bf16_savings(golden: Path) -> Iterator[Result]:
    """All exact savings on, in bfloat16."""
    yield from _case(golden, "bf16", Savings.all(), "policy_bf16_savings")


def _case(golden: Path, kind: str, savings: Savings, title: str) -> Iterator[Result]:
    calls = load_file(golden / f"policy_calls_{kind}.safetensors")
    suffix = "" if kind == "fp32" else "_bf16"
    log = json.loads((golden / f"policy_calls{suffix}.json").read_text())
    head = load_policy(golden, _DTYPES[kind], savings, calls)
    limit = _LIMITS[kind]
    for entry in log:
        name = entry["call"]
        result = replay_call(head, calls, name, recorded_options(entry))
        part = weights_of(calls, f"{name}.")
        yield close(f"{title}/{name}.action", result.action, part["out.action"], limit)
        assert result.video is not None
        yield close(f"{title}/{name}.video", result.video, part["out.video"], limit)
        yield from _caches(f"{title}/{name}", head, part, limit)
        yield from _conditioning(f"{title}/{name}", head, result, part, limit)
        yield _bookkeeping(f"{title}/{name}", result, entry)


def _caches(name: str, head: PolicyHead, part: Tensors, limit: float) -> Iterator[Result]:
    for key in sorted(k for k in part if k.startswith("kv.")):
        _, branch, layer = key.split(".")
        past = head.branches.past(int(layer), uncond=branch == "neg")
        yield close(f"{name}.{key}", past, part[key], limit)


def _conditioning(
    name: str, head: PolicyHead, result: CallResult, part: Tensors, limit: float
) -> Iterator[Result]:
    conditioning = head._conditioning
    if "mid.ys" in part and conditioning is not None:
        ys = conditioning.y(0, part["mid.ys"].shape[2])
        assert ys is not None
        yield close(f"{name}.ys", ys, part["mid.ys"], limit)
        yield close(f"{name}.first_latent", result.observed, part["mid.first_latent"], limit)
        assert head._clip is not None
        yield close(f"{name}.clip", head._clip, part["mid.clip"], limit)
    elif not result.reset:
        k = result.observed.shape[2]
        yield close(
            f"{name}.observed", result.observed, part["mid.vae_last_encode"][:, :, -k:], limit
        )


def _bookkeeping(name: str, result: CallResult, entry: dict[str, Any]) -> Result:
    """Frame counters, forwards, timesteps and cache length, all exactly."""
    ours = {
        "csf_after": result.next_frame,
        "start_frame": result.start_frame,
        "prefill_forwards": sum(result.prefills),
        "denoise_forwards": sum(result.denoises),
        "video_timesteps_run": list(result.timesteps),
        "kv_tokens": result.cached_tokens,
        "clip_reencoded": bool(result.reset),
    }
    wrong = [f"{k} {v} instead of {entry[k]}" for k, v in ours.items() if v != entry[k]]
    return Result(
        f"{name}.bookkeeping", float(len(wrong)), 0.0, not wrong, "; ".join(wrong) or "exact"
    )
