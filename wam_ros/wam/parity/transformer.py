"""Parity of the transformer: embodiment MLPs, training forwards, cached inference."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file

from wam_ros.wam.config import WamConfig
from wam_ros.wam.config_io import from_golden
from wam_ros.wam.dit import CausalDiT
from wam_ros.wam.embodiment import ActionEncoder, CategoryMLP, action_sincos
from wam_ros.wam.mask import training_mask
from wam_ros.wam.parity.result import Result, close, exact
from wam_ros.wam.patches import time_sinusoid
from wam_ros.wam.rope import Rotation, video_angles

_FORWARD = 1e-5
# float32 exponentials differ in their last bit between processors, and a timestep near 1000 makes
# that 1e-4 of an angle at most; on an Intel Xeon it came to 4e-6 of the encoding.
_TIMES = {"timestep_sincos": 1e-5, "action_tokens": 1e-5}
Tensors = dict[str, torch.Tensor]


def golden_config(golden: Path, **options: Any) -> WamConfig:
    """The configuration of a recorded set."""
    return from_golden(json.loads((golden / "config.json").read_text()), **options)


def weights_of(data: Tensors, prefix: str) -> Tensors:
    """The entries below ``prefix``, without it."""
    return {k.removeprefix(prefix): v for k, v in data.items() if k.startswith(prefix)}


def metadata_of(file: Path) -> dict[str, str]:
    """What a safetensors file says about itself."""
    with safe_open(file, "pt") as handle:
        return handle.metadata() or {}


def case_embodiment_mlp(golden: Path) -> Iterator[Result]:
    """Encoders and decoder alone, with one and with several categories."""
    data = load_file(golden / "embodiment_mlp.safetensors")
    width = data["out.time_sinus"].shape[-1]
    ours = time_sinusoid(data["in.time"], width).float()
    yield close("embodiment/time_sinus", ours, data["out.time_sinus"], 1e-6)
    for prefix in sorted({k.split(".")[0] for k in data if k[0] == "n"}):
        part = weights_of(data, f"{prefix}.")
        categories, action_dim, dim = part["action_encoder.W1.W"].shape
        hidden = part["state_encoder.layer1.W"].shape[-1]
        encoder = ActionEncoder(categories, action_dim, dim)
        state = CategoryMLP(categories, part["state_encoder.layer1.W"].shape[1], hidden, dim)
        decoder = CategoryMLP(categories, dim, hidden, action_dim)
        encoder.load_state_dict(weights_of(part, "action_encoder."))
        state.load_state_dict(weights_of(part, "state_encoder."))
        decoder.load_state_dict(weights_of(part, "action_decoder."))
        ids, t = part["in.ids"], part["in.t"]
        with torch.no_grad():
            pairs = {
                "action_tokens": encoder(part["in.action"], t, ids),
                "state_tokens": state(part["in.state"], ids),
                "action": decoder(part["in.hidden"], ids),
                "timestep_sincos": action_sincos(t, dim),
            }
            if categories == 1:
                pairs["action_tokens"] = encoder(part["in.action"], t)
        for name, ours in pairs.items():
            limit = _TIMES.get(name, 1e-6)
            yield close(f"embodiment/{prefix}.{name}", ours, part[f"out.{name}"], limit)


def _block_outputs(model: CausalDiT) -> Tensors:
    """Have every block's input and output recorded, into the returned dictionary."""
    found: Tensors = {}

    def keep(name: str, index: int) -> Any:
        def hook(_module: Any, inputs: Any, output: Any) -> None:
            found[f"{name}{index}_out"] = output[0]
            if index == 0:
                found["block_in"] = inputs[0]
                found["e0"] = inputs[1].rows

        return hook

    for i, block in enumerate(model.blocks):
        block.register_forward_hook(keep("block", i))
    model.blocks[0].self_attn.o.register_forward_hook(
        lambda _m, _i, output: found.__setitem__("block0_selfattn_out", output)
    )
    return found


def _case_train(golden: Path, name: str) -> Iterator[Result]:
    file = golden / f"{name}.safetensors"
    data, meta = load_file(file), metadata_of(file)
    config = golden_config(golden).dit
    config = dataclasses.replace(config, max_chunk_size=int(meta["max_chunk_size"]))
    model = CausalDiT(config)
    model.load_state_dict(weights_of(data, "w."))
    frames, per_frame = int(meta["frames"]), config.frame_seqlen
    mask = training_mask(
        frames,
        per_frame,
        frames_per_block=config.num_frame_per_block,
        actions_per_block=config.num_action_per_block,
        states_per_block=config.num_state_per_block,
        local_attn_size=int(meta["local_attn_size"]),
    )
    yield exact(f"{name}/attn_mask", mask, data["out.attn_mask"].bool())
    rows, columns = data["in.noisy"].shape[3] // 2, data["in.noisy"].shape[4] // 2
    angles = video_angles(frames, rows, columns, config.head_dim)
    rotation = Rotation.of(angles, torch.float32, "cpu")
    yield close(f"{name}/rope_cos", rotation.cos, data["mid.rope_video_cos"], 1e-6)
    yield close(f"{name}/rope_sin", rotation.sin, data["mid.rope_video_sin"], 1e-6)
    found = _block_outputs(model)
    with torch.no_grad():
        context = model.embed_context(data["in.context"], data["in.clip"])
        found["text_ctx"], found["img_ctx"] = context.text, context.image
        found["action_tokens"] = model.action_encoder(data["in.action"], data["in.timestep_action"])
        found["state_tokens"] = model.state_encoder(data["in.state"])
        video, action = model(
            data["in.noisy"],
            data["in.clean"],
            data["in.y"],
            data["in.timestep"],
            data["in.action"],
            data["in.timestep_action"],
            data["in.state"],
            context,
        )
    for key in sorted(k.removeprefix("mid.") for k in data if k.startswith("mid.")):
        if key in found:
            yield close(f"{name}/{key}", found[key], data[f"mid.{key}"], _FORWARD)
    yield close(f"{name}/out.video", video, data["out.video"], _FORWARD)
    yield close(f"{name}/out.action", action, data["out.action"], _FORWARD)


def case_dit_train(golden: Path) -> Iterator[Result]:
    """Training forward with the full window."""
    yield from _case_train(golden, "dit_train")


def case_dit_train_windowed(golden: Path) -> Iterator[Result]:
    """Training forward where the clean part's window cuts."""
    yield from _case_train(golden, "dit_train_windowed")


def case_dit_infer_5b(golden: Path) -> Iterator[Result]:
    """Cached inference without latent concatenation, with both kinds of cache."""
    file = golden / "dit_infer_5b.safetensors"
    data = load_file(file)
    model = CausalDiT(golden_config(golden, concat=False).dit)
    model.load_state_dict(weights_of(data, "w."))
    starts = [int(s) for s in metadata_of(file)["start_frames"].split(",")]
    steps = sorted({k.split(".")[0] for k in data if k[0] == "s" and k[1].isdigit()})
    for kind, cache in (("growing", model.growing_cache()), ("static", model.static_cache())):
        for step, start in zip(steps, starts):
            part = weights_of(data, f"{step}.")
            with torch.no_grad():
                yield from _infer_step(
                    f"dit_infer_5b/{kind}.{step}", model, cache, data, part, start
                )


@torch.no_grad()
def _infer_step(
    name: str, model: CausalDiT, cache: Any, data: Tensors, part: Tensors, start: int
) -> list[Result]:
    results: list[Result] = []
    context = model.embed_context(data["in.context"], data["in.clip"])
    x, t = part["x"], part["t"]
    if "action" not in part:
        video = model.prefill(x, None, t, start, context, cache)
        for layer in range(len(model.blocks)):
            kv = part[f"kv{layer}"]
            results.append(close(f"{name}.kv{layer}", cache.past(layer), kv, _FORWARD))
    else:
        video, action = model.denoise(
            x, None, t, part["action"], part["t_action"], part["state"], start, context, cache
        )
        results.append(close(f"{name}.out_action", action, part["out_action"], _FORWARD))
    assert video is not None
    results.append(close(f"{name}.out_video", video, part["out_video"], _FORWARD))
    return results
