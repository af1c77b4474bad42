"""Models with random weights: what tests, reports and speed measurements run on.

They say nothing about a trained model's quality. The weights are scaled by fan-in, so that
activations stay of order one and rounding errors are of the size a trained model sees.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from wam_ros.wam.checkpoint.load import Networks, build
from wam_ros.wam.config import WamConfig
from wam_ros.wam.head import NoiseFn, PolicyHead
from wam_ros.wam.savings import Savings
from wam_ros.wam.stored import place


def _scale(name: str, shape: tuple[int, ...]) -> tuple[float, float]:
    """Mean and standard deviation of a parameter."""
    leaf = name.rpartition(".")[2]
    if leaf in ("bias", "b"):
        return 0.0, 0.1
    if leaf == "modulation":
        return 0.0, 0.3
    if leaf == "gamma" or len(shape) < 2:
        return 1.0, 0.1
    if leaf == "W":
        return 0.0, shape[1] ** -0.5
    return 0.0, math.prod(shape[1:]) ** -0.5


@torch.no_grad()
def fill_random(
    module: nn.Module, generator: torch.Generator, dtype: torch.dtype = torch.float32
) -> None:
    """Replace every parameter by a random one on the generator's device."""
    # Names that share a parameter (the text encoder's embedding) must go on sharing it.
    shared: dict[int, torch.Tensor] = {}
    for name, old in list(module.named_parameters(remove_duplicate=False)):
        if id(old) not in shared:
            mean, std = _scale(name, tuple(old.shape))
            noise = torch.randn(old.shape, generator=generator, device=generator.device)
            shared[id(old)] = (mean + std * noise).to(dtype)
        place(module, name, shared[id(old)])


def random_networks(
    config: WamConfig,
    seed: int = 0,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Networks:
    """All four networks, filled one parameter at a time on ``device``."""
    networks = build(config)
    generator = torch.Generator(device).manual_seed(seed)
    for module in networks.by_component().values():
        fill_random(module, generator, dtype)
        module.to(device)
    return networks


def random_prompt(
    config: WamConfig, seed: int = 0, tokens: int = 5
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and mask [1, text_len] of an instruction of ``tokens`` tokens."""
    generator = torch.Generator().manual_seed(seed)
    length = config.dit.text_len
    ids = torch.randint(2, config.t5.vocab, (1, length), generator=generator)
    mask = (torch.arange(length) < tokens).long()[None]
    return ids * mask, mask


def random_head(
    config: WamConfig,
    savings: Savings | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    noise: NoiseFn | None = None,
) -> PolicyHead:
    """A policy head on `random_networks`; the same seed gives the same weights."""
    n = random_networks(config, seed, device, dtype)
    negative = random_prompt(config, seed + 1, tokens=7)
    return PolicyHead(config, n.dit, n.text, n.image, n.vae, negative, savings, noise=noise)
