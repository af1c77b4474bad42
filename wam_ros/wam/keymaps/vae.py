"""Video VAE: original Wan names against `diffusers.AutoencoderKLWan`, Wan2.1 and Wan2.2."""

from __future__ import annotations

import itertools

from wam_ros.wam.config import VaeConfig
from wam_ros.wam.keymaps import Entry


def entries(config: VaeConfig) -> list[Entry]:
    """All tensors of the VAE, names below `action_head.vae.model.`."""
    z = config.z_dim
    return [
        *_conv("conv1", (2 * z, 2 * z, 1, 1, 1), "quant_conv"),
        *_conv("conv2", (z, z, 1, 1, 1), "post_quant_conv"),
        *_encoder(config),
        *_decoder(config),
    ]


def _encoder(config: VaeConfig) -> list[Entry]:
    widths = [config.base_dim * m for m in (1, *config.dim_mult)]
    channels = 3 * config.patch_size**2
    residual = config.kind == "wan2.2"
    out = _conv("encoder.conv1", (widths[0], channels, 3, 3, 3), "encoder.conv_in")
    flat = 0
    for i, (before, width) in enumerate(itertools.pairwise(widths)):
        for j in range(config.num_res_blocks):
            name, target = _place("down", residual, i, j, flat)
            out += _residual(name, before if j == 0 else width, width, target)
            flat += 1
        if i < len(config.dim_mult) - 1:
            j = config.num_res_blocks
            name, target = _place("down", residual, i, j, flat, resample="downsampler")
            out += _conv(f"{name}.resample.1", (width, width, 3, 3), f"{target}.resample.1")
            if config.temporal_downsample[i]:
                shape = (width, width, 3, 1, 1)
                out += _conv(f"{name}.time_conv", shape, f"{target}.time_conv")
            flat += 1
    return [*out, *_middle("encoder", widths[-1]), *_head("encoder", widths[-1], 2 * config.z_dim)]


def _decoder(config: VaeConfig) -> list[Entry]:
    mult = config.dim_mult[::-1]
    widths = [config.decoder_base_dim * m for m in (mult[0], *mult)]
    temporal = config.temporal_downsample[::-1]
    residual = config.kind == "wan2.2"
    out = _conv("decoder.conv1", (widths[0], config.z_dim, 3, 3, 3), "decoder.conv_in")
    out += _middle("decoder", widths[0])
    flat = 0
    for i, (before, width) in enumerate(itertools.pairwise(widths)):
        # Wan2.1 halves the channels in the upsampling convolution, Wan2.2 in the next stage.
        if not residual and i > 0:
            before //= 2
        for j in range(config.num_res_blocks + 1):
            name, target = _place("up", residual, i, j, flat)
            out += _residual(name, before if j == 0 else width, width, target)
            flat += 1
        if i < len(mult) - 1:
            j = config.num_res_blocks + 1
            sampler = "upsampler" if residual else "upsamplers.0"
            name, target = _place("up", residual, i, j, flat, resample=sampler)
            after = width if residual else width // 2
            out += _conv(f"{name}.resample.1", (after, width, 3, 3), f"{target}.resample.1")
            if temporal[i]:
                shape = (2 * width, width, 3, 1, 1)
                out += _conv(f"{name}.time_conv", shape, f"{target}.time_conv")
            flat += 1
    return [*out, *_head("decoder", widths[-1], 3 * config.patch_size**2)]


def _place(
    way: str, residual: bool, i: int, j: int, flat: int, resample: str | None = None
) -> tuple[str, str]:
    """Stored and module name of the j-th piece of stage i (the `flat`-th of all)."""
    side, stored, blocks = {
        "down": ("encoder", "downsamples", "down_blocks"),
        "up": ("decoder", "upsamples", "up_blocks"),
    }[way]
    name = f"{side}.{stored}.{i}.{stored}.{j}" if residual else f"{side}.{stored}.{flat}"
    if way == "down" and not residual:
        return name, f"{side}.{blocks}.{flat}"
    return name, f"{side}.{blocks}.{i}.{resample or f'resnets.{j}'}"


def _conv(name: str, shape: tuple[int, ...], target: str) -> list[Entry]:
    return [
        Entry(f"{name}.weight", shape, (f"{target}.weight",)),
        Entry(f"{name}.bias", shape[:1], (f"{target}.bias",)),
    ]


def _residual(name: str, before: int, width: int, target: str) -> list[Entry]:
    out = [
        Entry(f"{name}.residual.0.gamma", (before, 1, 1, 1), (f"{target}.norm1.gamma",)),
        *_conv(f"{name}.residual.2", (width, before, 3, 3, 3), f"{target}.conv1"),
        Entry(f"{name}.residual.3.gamma", (width, 1, 1, 1), (f"{target}.norm2.gamma",)),
        *_conv(f"{name}.residual.6", (width, width, 3, 3, 3), f"{target}.conv2"),
    ]
    if before != width:
        out += _conv(f"{name}.shortcut", (width, before, 1, 1, 1), f"{target}.conv_shortcut")
    return out


def _middle(side: str, width: int) -> list[Entry]:
    name, target = f"{side}.middle", f"{side}.mid_block"
    attention = f"{target}.attentions.0"
    return [
        *_residual(f"{name}.0", width, width, f"{target}.resnets.0"),
        Entry(f"{name}.1.norm.gamma", (width, 1, 1), (f"{attention}.norm.gamma",)),
        *_conv(f"{name}.1.to_qkv", (3 * width, width, 1, 1), f"{attention}.to_qkv"),
        *_conv(f"{name}.1.proj", (width, width, 1, 1), f"{attention}.proj"),
        *_residual(f"{name}.2", width, width, f"{target}.resnets.1"),
    ]


def _head(side: str, width: int, out_channels: int) -> list[Entry]:
    return [
        Entry(f"{side}.head.0.gamma", (width, 1, 1, 1), (f"{side}.norm_out.gamma",)),
        *_conv(f"{side}.head.2", (out_channels, width, 3, 3, 3), f"{side}.conv_out"),
    ]
