"""Read and write the released ``config.json``, and read the dimensions of recorded test data.

The released file names no dimensions of the text, image and video encoders, because they are those
of the Wan release it was trained from. Ours writes them into the same sections, so that small
models travel in the same layout; a reader of the released layout ignores them.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from wam_ros.wam.config import (
    ClipConfig,
    ConfigError,
    DiTConfig,
    HeadConfig,
    KeypointConfig,
    T5Config,
    VaeConfig,
    WamConfig,
)
from wam_ros.wam.presets import preset

T = TypeVar("T")
_IMAGE_KINDS: dict[str, type[ClipConfig] | type[KeypointConfig]] = {
    "clip": ClipConfig,
    "keypoints": KeypointConfig,
}


def _pick(default: T, section: Mapping[str, Any]) -> T:
    """Replace the fields of ``default`` that ``section`` names (null counts as absent)."""
    changes: dict[str, Any] = {}
    for f in dataclasses.fields(default):  # type: ignore[arg-type]
        key = f.name
        value = section.get(key)
        if value is None:
            continue
        old = getattr(default, f.name)
        if isinstance(old, tuple):
            value = tuple(value)
        elif isinstance(old, bool):
            if not isinstance(value, bool):
                raise ConfigError(f"config.json: {key} is {value!r}, expected true or false")
        elif isinstance(old, (int, float)) and not isinstance(value, (int, float)):
            raise ConfigError(f"config.json: {key} is {value!r}, expected a number")
        changes[f.name] = value
    try:
        return dataclasses.replace(default, **changes)  # type: ignore[type-var]
    except ConfigError:
        raise
    except (TypeError, ValueError) as error:
        raise ConfigError(f"config.json: {error}") from error


def _section(data: Mapping[str, Any], *path: str) -> Mapping[str, Any]:
    for key in path:
        value = data.get(key)
        if not isinstance(value, Mapping):
            raise ConfigError(
                f"config.json: no section '{key}'; expected "
                "action_head_cfg.config.diffusion_model_cfg as DreamZero writes it"
            )
        data = value
    return data


def from_released(data: Mapping[str, Any]) -> WamConfig:
    """Build a configuration from the content of a released ``config.json``.

    Raises
    ------
    ConfigError
        When a section is missing or values contradict each other; names the field.
    """
    outer = _section(data, "action_head_cfg")
    head_section = _section(outer, "config")
    dit_section = _section(head_section, "diffusion_model_cfg")
    base = preset("5b" if dit_section.get("in_dim") == 48 else "14b")

    # The action sizes stand in the head's section; the transformer's own section may repeat them.
    merged = {**_shared(head_section), **dit_section}
    dit = _pick(base.dit, merged)
    horizon = head_section.get("action_horizon") or data.get("action_horizon")
    horizon = horizon or dit.num_action_per_block
    if "num_action_per_block" not in merged:
        dit = dataclasses.replace(dit, num_action_per_block=int(horizon))
    sizes: dict[str, Any] = {"action_horizon": int(horizon)}
    if head_section.get("target_video_height") and head_section.get("target_video_width"):
        # Present for the 5B only, whose composite is resized to it.
        sizes["video_height"] = head_section["target_video_height"]
        sizes["video_width"] = head_section["target_video_width"]
        sizes["resize_input"] = True
    head = _pick(base.head, {**head_section, **sizes})

    def encoder(key: str, default: T) -> T:
        section = head_section.get(key) or {}
        return _pick(default, section)

    return WamConfig(
        dit,
        head,
        encoder("text_encoder_cfg", base.t5),
        encoder("image_encoder_cfg", _image_kind(head_section)),
        encoder("vae_cfg", base.vae),
        name=str(data.get("name") or base.name),
    )


def _image_kind(head: Mapping[str, Any]) -> ClipConfig | KeypointConfig:
    kind = (head.get("image_encoder_cfg") or {}).get("kind", "clip")
    if kind not in _IMAGE_KINDS:
        raise ConfigError(
            f"config.json: image_encoder_cfg.kind is '{kind}', expected {' or '.join(_IMAGE_KINDS)}"
        )
    return _IMAGE_KINDS[kind]()


def _shared(head: Mapping[str, Any]) -> dict[str, Any]:
    names = ("num_frame_per_block", "num_action_per_block", "num_state_per_block", "max_state_dim")
    found = {name: head[name] for name in names if head.get(name) is not None}
    action = head.get("max_action_dim") or head.get("action_dim")
    if action is not None:
        found["action_dim"] = action
    return found


def to_released(config: WamConfig) -> dict[str, Any]:
    """The inverse of `from_released`, as a JSON-ready dictionary."""
    d, h = config.dit, config.head
    dit = {"model_type": "i2v" if d.concat_first_frame_latent else "ti2v", **_plain(d)}
    head = _plain(h)
    if h.resize_input:
        head.update(target_video_height=h.video_height, target_video_width=h.video_width)
    head.update(
        num_frame_per_block=d.num_frame_per_block,
        action_dim=d.action_dim,
        max_action_dim=d.action_dim,
        max_state_dim=d.max_state_dim,
        tiled=False,
        diffusion_model_cfg=dit,
        text_encoder_cfg=_plain(config.t5),
        image_encoder_cfg=_image_section(config.clip),
        vae_cfg=_plain(config.vae),
    )
    return {
        "model_type": "vla",
        "architectures": ["VLA"],
        "name": config.name,
        "action_dim": d.action_dim,
        "action_horizon": h.action_horizon,
        "hidden_size": 0,
        "model_dtype": "bfloat16",
        "backbone_cfg": {},
        "action_head_cfg": {"config": head},
    }


def _image_section(config: ClipConfig | KeypointConfig) -> dict[str, Any]:
    """CLIP is what a reader expects, so only the other kind is named."""
    named = {} if isinstance(config, ClipConfig) else {"kind": "keypoints"}
    return {**named, **_plain(config)}


def _plain(value: Any) -> dict[str, Any]:
    return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(value).items()}


def read_config(path: Path) -> WamConfig:
    """Read ``config.json``, or the one in the folder ``path``; raises ConfigError."""
    file = path / "config.json" if path.is_dir() else path
    try:
        data = json.loads(file.read_text())
    except FileNotFoundError:
        raise ConfigError(f"{file}: not found; a checkpoint folder holds config.json") from None
    except json.JSONDecodeError as error:
        raise ConfigError(f"{file}: not valid JSON ({error})") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{file}: expected a JSON object")
    return from_released(data)


def write_config(config: WamConfig, path: Path) -> None:
    """Write ``config.json`` to the folder or file ``path``."""
    file = path / "config.json" if path.is_dir() else path
    file.write_text(json.dumps(to_released(config), indent=2) + "\n")


def from_golden(
    data: Mapping[str, Any],
    *,
    latents_mean: tuple[float, ...] | None = None,
    latents_std: tuple[float, ...] | None = None,
    concat: bool = True,
) -> WamConfig:
    """Configuration of a recorded test set (its ``config.json`` holds short names).

    ``latents_mean`` and ``latents_std`` (``z_dim`` entries) are recorded beside the weights.
    ``concat`` is false for the variant without conditioning latents.
    """
    z, rows, columns = int(data["zc"]), int(data["lh"]), int(data["lw"])
    dit = DiTConfig(
        dim=data["dim"],
        num_heads=data["heads"],
        num_layers=data["layers"],
        ffn_dim=data["ffn"],
        freq_dim=data["freq"],
        in_dim=2 * z + 4 if concat else z,
        out_dim=z,
        concat_first_frame_latent=concat,
        text_dim=data["text_dim"],
        text_len=data["text_len"],
        image_dim=data["img_dim"],
        action_dim=data["adim"],
        max_state_dim=data["sdim"],
        hidden_size=data["hid"],
        num_frame_per_block=data["K"],
        num_action_per_block=data["Ha"],
        num_state_per_block=data["Ns"],
        max_chunk_size=data["chunks"],
        frame_seqlen=(rows // 2) * (columns // 2),
    )
    t5 = data["t5"]
    text = T5Config(
        vocab=t5["vocab"],
        dim=t5["dim"],
        dim_attn=t5["dim_attn"],
        dim_ffn=t5["dim_ffn"],
        num_heads=t5["num_heads"],
        num_layers=t5["num_layers"],
        num_buckets=t5["num_buckets"],
    )
    clip = _pick(ClipConfig(), data["clip"])
    vae = VaeConfig(
        base_dim=data["vae"],
        decoder_base_dim=data["vae"],
        z_dim=z,
        latents_mean=latents_mean or (0.0,) * z,
        latents_std=latents_std or (1.0,) * z,
    )
    head = HeadConfig(
        num_frames=data["nf"],
        action_horizon=data["Ha"],
        video_height=rows * vae.spatial_stride,
        video_width=columns * vae.spatial_stride,
    )
    return WamConfig(dit, head, text, clip, vae, name=f"golden-{data.get('set', '')}")
