"""Low-rank fine-tuning, stored as the release stores it (SPEC section 5)."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wam_ros.wam.checkpoint.layout import PREFIXES
from wam_ros.wam.checkpoint.origin import note_base
from wam_ros.wam.config import WamConfig
from wam_ros.wam.dit import CausalDiT

WRAPPED = PREFIXES["dit"] + "base_model.model."
"""What PEFT's wrapper makes of the transformer's prefix."""
WHOLE = ("state_encoder.", "action_encoder.", "action_decoder.")
"""Trained in full beside the adapters, as the release does."""


class LoraLinear(nn.Module):
    """``y = W x + b + (alpha / rank) B A x`` with W and b frozen; B starts at zero."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        where = {"device": base.weight.device, "dtype": torch.float32}
        self.down = nn.Parameter(torch.empty(rank, base.in_features, **where))
        self.up = nn.Parameter(torch.zeros(base.out_features, rank, **where))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))
        self.gain = alpha / rank

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., in] to [..., out]."""
        change = F.linear(F.linear(x, self.down.to(x.dtype)), self.up.to(x.dtype))
        out: Tensor = self.base(x) + self.gain * change
        return out


def add_lora(dit: CausalDiT, config: WamConfig) -> dict[str, LoraLinear]:
    """Put adapters on the linears that the configuration targets; returns them by module name.

    Everything else is frozen, but for the state and action networks (`WHOLE`).

    Raises
    ------
    ValueError
        If the configuration's ``lora_target_modules`` match no linear.
    """
    head = config.head
    targets = tuple(t.strip() for t in head.lora_target_modules.split(","))
    dit.requires_grad_(False)
    found = {}
    for name, module in list(dit.blocks.named_modules()):
        # As PEFT matches: the whole name, or a tail of it behind a dot.
        hit = any(name == t or name.endswith(f".{t}") for t in targets)
        if not isinstance(module, nn.Linear) or not hit:
            continue
        parent, _, leaf = name.rpartition(".")
        adapter = LoraLinear(module, head.lora_rank, head.lora_alpha)
        setattr(dit.blocks.get_submodule(parent), leaf, adapter)
        found[f"blocks.{name}"] = adapter
    if not found:
        raise ValueError(
            f"lora_target_modules '{head.lora_target_modules}' match no linear of the transformer"
        )
    for part in (dit.state_encoder, dit.action_encoder, dit.action_decoder):
        part.requires_grad_(True)
    return found


def lora_tensors(dit: CausalDiT, adapters: dict[str, LoraLinear]) -> dict[str, Tensor]:
    """What a LoRA-only checkpoint holds, under its stored names."""
    out = {}
    for name, adapter in adapters.items():
        out[f"{WRAPPED}{name}.lora_A.default.weight"] = adapter.down.detach()
        out[f"{WRAPPED}{name}.lora_B.default.weight"] = adapter.up.detach()
    for name, parameter in dit.named_parameters():
        if name.startswith(WHOLE):
            out[WRAPPED + name] = parameter.detach()
    return out


def save_lora(
    folder: Path, config: WamConfig, dit: CausalDiT, adapters: dict[str, LoraLinear], base: Path
) -> Path:
    """Write ``config.json`` and the adapters; the base is named, not copied."""
    import dataclasses
    import json

    from safetensors.torch import save_file

    from wam_ros.wam.config_io import to_released

    folder.mkdir(parents=True, exist_ok=True)
    head = dataclasses.replace(config.head, train_architecture="lora")
    released = to_released(dataclasses.replace(config, head=head))
    inner = released["action_head_cfg"]["config"]
    inner["save_lora_only"] = True
    inner["diffusion_model_cfg"]["diffusion_model_pretrained_path"] = str(base)
    (folder / "config.json").write_text(json.dumps(released, indent=2) + "\n")
    file = folder / "model.safetensors"
    tensors = {k: v.to(torch.float32).contiguous() for k, v in lora_tensors(dit, adapters).items()}
    save_file(tensors, str(file), metadata={"format": "pt"})
    note_base(folder, base)
    return file
