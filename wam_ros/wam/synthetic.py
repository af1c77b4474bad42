"""Models with random weights and observations that nobody saw, for speed and for tests.

Random weights show how fast a shape runs and whether two ways to compute it agree. They say nothing
about a policy's quality.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F

from wam_ros.wam.checkpoint.layout import slots
from wam_ros.wam.checkpoint.load import Networks, build
from wam_ros.wam.config import ConfigError, WamConfig
from wam_ros.wam.dit import CausalDiT
from wam_ros.wam.keymaps import Entry
from wam_ros.wam.keymaps import dit as dit_keys
from wam_ros.wam.precision import prepare
from wam_ros.wam.presets import preset, tiny
from wam_ros.wam.stored import StoredNetwork, place

SIZES = ("tiny", "small", "5b", "14b")


def config_of(size: str, layers: int = 0, rows: int = 0) -> WamConfig:
    """Configuration by name.

    ``layers`` above zero cuts the transformer to that many blocks, ``rows`` sets the action rows.

    Raises
    ------
    ConfigError
        For a name not in `SIZES`.
    """
    if size == "tiny":
        config = tiny()
    elif size == "small":
        config = tiny(dim=256, num_heads=4, num_layers=4, z_dim=16, action_rows=24, latent=(8, 12))
    elif size in SIZES:
        config = preset(size)
    else:
        raise ConfigError(f"no size '{size}'; there are {', '.join(SIZES)}")
    if layers:
        config = replace(config, dit=replace(config.dit, num_layers=layers))
    return config.with_action_rows(rows) if rows else config


class _Random:
    """Tensors of sizes that keep activations near one."""

    def __init__(self, seed: int, device: torch.device, dtype: torch.dtype) -> None:
        self._generator = torch.Generator(device).manual_seed(seed)
        self._where: dict[str, Any] = {"device": device, "dtype": dtype}

    def __call__(self, entry: Entry) -> torch.Tensor:
        name, shape = entry.name, entry.shape
        leaf = name.rpartition(".")[2]
        if leaf in ("bias", "b"):
            mean, std = 0.0, 0.02
        elif leaf == "gamma" or len(shape) == 1:
            mean, std = 1.0, 0.1
        elif leaf == "modulation":
            mean, std = 0.0, shape[-1] ** -0.5
        elif leaf == "W":
            mean, std = 0.0, shape[1] ** -0.5
        else:
            inputs = 1
            for n in shape[1:]:
                inputs *= n
            mean, std = 0.0, inputs**-0.5
        out = torch.empty(shape, **self._where)
        return out.normal_(mean, std, generator=self._generator)


@torch.no_grad()
def random_dit(
    size: str = "tiny",
    seed: int = 0,
    device: str = "cpu",
    dtype: str = "float32",
    precision: str = "bf16",
    layers: int = 0,
    rows: int = 0,
) -> CausalDiT:
    """A transformer with random weights, quantised as they are drawn.

    Takes plain values only, so that another process can be told to build the same one.
    """
    config = config_of(size, layers, rows)
    return _fill_dit(config, seed, device, getattr(torch, dtype), precision)


def _fill_dit(
    config: WamConfig, seed: int, device: str, dtype: torch.dtype, precision: str
) -> CausalDiT:
    with torch.device("meta"):
        dit = CausalDiT(config.dit)
    dit.eval().requires_grad_(False)
    prepare(dit, precision)
    draw = _Random(seed, torch.device(device), dtype)
    for entry in dit_keys.entries(config.dit):
        place(dit, entry.name, draw(entry))
    return dit


@torch.no_grad()
def random_networks(
    config: WamConfig,
    seed: int = 0,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    precision: str = "bf16",
) -> Networks:
    """All four networks with random weights."""
    networks = build(config)
    networks.dit = _fill_dit(config, seed, device, dtype, precision)
    draw = _Random(seed + 1, torch.device(device), dtype)
    for slot in slots(config).values():
        module = networks.by_component()[slot.component]
        if isinstance(module, StoredNetwork) and slot.entry.targets:
            module.place(slot.entry, draw(slot.entry))
    for module in networks.by_component().values():
        module.to(device)
    return networks


@dataclass
class RandomText:
    """Stands in for the text encoder: an embedding per prompt, zero on the padding."""

    dim: int
    dtype: torch.dtype

    def __call__(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Embeddings [B, L, dim] of ids and mask [B, L]."""
        seed = int(ids.sum()) + 7919 * int(mask.sum())
        g = torch.Generator(ids.device).manual_seed(seed)
        shape = (*ids.shape, self.dim)
        out = torch.randn(shape, generator=g, device=ids.device).to(self.dtype)
        return out * mask[..., None].to(self.dtype)


class RandomImage(torch.nn.Module):
    """Stands in for the image tower: features that depend on the picture's mean colour."""

    def __init__(self, tokens: int, dim: int) -> None:
        super().__init__()
        self._shape = (tokens, dim)

    def encode(self, frames: torch.Tensor) -> torch.Tensor:
        """Features [B, tokens, dim] of frames [B, 3, H, W]."""
        g = torch.Generator(frames.device).manual_seed(0)
        base = torch.randn((3, *self._shape), generator=g, device=frames.device)
        mean = frames.float().mean((2, 3)) + 0.5
        return torch.einsum("bc,ctd->btd", mean, base).to(frames.dtype)


class RandomVae:
    """Stands in for the video VAE: pooled colours, mixed into latent channels, causal in time."""

    def __init__(self, config: WamConfig) -> None:
        self._config = config.vae

    def stream(self) -> _RandomStream:
        """Start a clip."""
        return _RandomStream(self._config.z_dim, self._config.spatial_stride)

    def encode(self, video: torch.Tensor) -> torch.Tensor:
        """Latents [B, z, 1 + (T - 1) // 4, h, w] of [B, 3, T, H, W]."""
        return self.stream().push(video)

    def decode_parts(self, latents: torch.Tensor) -> Iterator[torch.Tensor]:
        """Raise: there is nothing to see."""
        raise NotImplementedError("random encoders cannot decode video")


class _RandomStream:
    def __init__(self, z: int, stride: int) -> None:
        self._z, self._stride = z, stride
        self._waiting: torch.Tensor | None = None
        self._count = 0

    def push(self, frames: torch.Tensor) -> torch.Tensor:
        if self._waiting is not None:
            frames = torch.cat((self._waiting, frames), 2)
        done = []
        while frames.shape[2] >= (need := 4 if self._count else 1):
            done.append(self._latent(frames[:, :, :need].mean(2)))
            frames = frames[:, :, need:]
            self._count += 1
        self._waiting = frames
        if done:
            return torch.stack(done, 2)
        b, _, _, h, w = frames.shape
        return frames.new_zeros((b, self._z, 0, h // self._stride, w // self._stride))

    def _latent(self, frame: torch.Tensor) -> torch.Tensor:
        g = torch.Generator(frame.device).manual_seed(self._count)
        pooled = F.avg_pool2d(frame.float(), self._stride)
        mix = torch.randn((self._z, 3), generator=g, device=frame.device)
        noise = torch.randn((self._z, *pooled.shape[-2:]), generator=g, device=frame.device)
        return (torch.einsum("zc,bchw->bzhw", mix, pooled) + 0.7 * noise).to(frame.dtype)


def random_encoders(
    config: WamConfig, dtype: torch.dtype
) -> tuple[RandomText, RandomImage, RandomVae]:
    """Stand-ins for text encoder, image tower and VAE, where their weights are not the point."""
    image = RandomImage(config.dit.image_tokens, config.dit.image_dim)
    return RandomText(config.dit.text_dim, dtype), image, RandomVae(config)


def prompt(config: WamConfig, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and mask, int64 [1, text_len], of a prompt of about a quarter of that."""
    g = torch.Generator().manual_seed(seed)
    length = config.dit.text_len
    ids = torch.randint(1, config.t5.vocab, (1, length), generator=g)
    mask = (torch.arange(length)[None] < length // 4 + seed % 3).long()
    return ids * mask, mask


def clip(config: WamConfig, frames: int, start: int = 0, seed: int = 0) -> torch.Tensor:
    """Composites uint8 [1, frames, H, W, 3] of soft patches that drift by a few pixels a frame."""
    g = torch.Generator().manual_seed(seed)
    h, w = config.head.video_height, config.head.video_width
    coarse = torch.rand((1, 3, 8, 8), generator=g)
    picture = F.interpolate(coarse, size=(h, w), mode="bicubic", align_corners=False).clamp(0, 1)
    shifted = [torch.roll(picture, 3 * (start + i), dims=3) for i in range(frames)]
    return (torch.stack(shifted, 1) * 255).to(torch.uint8).permute(0, 1, 3, 4, 2)


def state(config: WamConfig, seed: int = 0) -> torch.Tensor:
    """A normalised state [1, states, max_state_dim]."""
    g = torch.Generator().manual_seed(seed)
    shape = (1, config.dit.num_state_per_block, config.dit.max_state_dim)
    return torch.rand(shape, generator=g) * 2 - 1
