"""Parity of the VAEs, the text encoder and the image encoder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from wam_ros.wam import sizes
from wam_ros.wam.clip import ImageEncoder
from wam_ros.wam.parity.golden import read_json, shapes, tensors
from wam_ros.wam.parity.result import Result, close
from wam_ros.wam.text import TextEncoder
from wam_ros.wam.vae import VideoVae

FORWARD = 1e-5
BF16 = 3e-2


def case_vae21(golden: Path) -> Iterator[Result]:
    """Wan2.1 VAE: encode at once and frame by frame, decode."""
    yield from _vae(golden, "vae21")


def case_vae22(golden: Path) -> Iterator[Result]:
    """Wan2.2 VAE, the same."""
    yield from _vae(golden, "vae22")


@torch.no_grad()
def _vae(golden: Path, name: str) -> Iterator[Result]:
    data = tensors(golden, f"{name}.safetensors")
    weights = {k[2:]: v for k, v in data.items() if k.startswith("w.")}
    mean, std = tuple(data["mean"].tolist()), tuple(data["std"].tolist())
    vae = VideoVae(sizes.vae_config(shapes(weights), mean, std))
    vae.load_stored(weights)
    clips = sorted(k[len("in.video") :] for k in data if k.startswith("in.video"))
    for n in clips:
        video, latent = data[f"in.video{n}"], data[f"out.latent{n}"]
        yield close(f"{name}/encode {n} frames", vae.encode(video), latent, FORWARD)
        stream = vae.stream()
        staged = torch.cat([stream.push(video[:, :, i : i + 1]) for i in range(int(n))], dim=2)
        yield close(f"{name}/encode {n} frames one by one", staged, latent, FORWARD)
    raw = vae.decode(data["in.z"], clamp=False)
    yield close(f"{name}/decode", raw, data["out.video"], FORWARD)
    yield close(
        f"{name}/decode clamped", vae.decode(data["in.z"]), data["out.video_clamped"], FORWARD
    )


@torch.no_grad()
def case_text(golden: Path) -> Iterator[Result]:
    """Text encoder on the prompts of the policy calls, with the padding zeroed."""
    weights = tensors(golden, "policy_weights.safetensors", "action_head.text_encoder.")
    for kind, dtype, limit in _kinds(golden):
        calls = tensors(golden, f"policy_calls_{kind}.safetensors")
        encoder = TextEncoder(sizes.t5_config(shapes(weights)))
        encoder.load_stored(weights)
        encoder.to(dtype)
        negative = encoder(calls["in.text_neg"], calls["in.text_neg_mask"])
        for call in _calls(calls, "mid.prompt_pos"):
            ours = encoder(calls[f"{call}.in.text"], calls[f"{call}.in.text_mask"])
            yield close(f"text_{kind}/{call} prompt", ours, calls[f"{call}.mid.prompt_pos"], limit)
        # The unconditional text never changes, so one comparison says it all.
        for call in _calls(calls, "mid.prompt_neg")[:1]:
            expected = calls[f"{call}.mid.prompt_neg"]
            yield close(f"text_{kind}/negative prompt", negative, expected, limit)


@torch.no_grad()
def case_clip(golden: Path) -> Iterator[Result]:
    """Image encoder on the reference frames of the policy calls that (re)start the window."""
    prefix = "action_head.image_encoder.model.visual."
    weights = tensors(golden, "policy_weights.safetensors", prefix)
    heads = int(read_json(golden, "config.json")["clip"]["num_heads"])
    for kind, dtype, limit in _kinds(golden):
        calls = tensors(golden, f"policy_calls_{kind}.safetensors")
        encoder = ImageEncoder(sizes.clip_config(shapes(weights), heads))
        encoder.load_stored(weights)
        encoder.to(dtype)
        for call in _calls(calls, "mid.clip"):
            frame = _reference_frame(calls[f"{call}.in.images"], dtype)
            ours = encoder.encode(frame)
            yield close(f"clip_{kind}/{call}", ours, calls[f"{call}.mid.clip"], limit)


def _kinds(golden: Path) -> list[tuple[str, torch.dtype, float]]:
    kinds = [("fp32", torch.float32, FORWARD), ("bf16", torch.bfloat16, BF16)]
    found = [k for k in kinds if (golden / f"policy_calls_{k[0]}.safetensors").is_file()]
    if not found:
        raise FileNotFoundError("policy_calls_fp32.safetensors")
    return found


def _calls(calls: dict[str, Tensor], entry: str) -> list[str]:
    """Calls that recorded `entry`, in their order."""
    names = [k.split(".", 1)[0] for k in calls if k.endswith(f".{entry}")]
    return sorted(names, key=lambda name: int(name[1:]))


def _reference_frame(images: Tensor, dtype: torch.dtype) -> Tensor:
    """The frame that conditions the window, [B, 3, H, W] in [-1, 1]; uint8 [B, T, H, W, 3] in."""
    frames = images.shape[1]
    chosen = images[:, -1] if frames in (4, 9) else images[:, 0]
    x = (chosen.float() / 255).to(dtype)
    return ((x - 0.5) / 0.5).permute(0, 3, 1, 2)
