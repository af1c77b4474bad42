"""Fill the networks from a checkpoint, one tensor at a time."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from wam_ros.wam.checkpoint.errors import CheckpointError
from wam_ros.wam.checkpoint.experiment import Experiment, read_experiment
from wam_ros.wam.checkpoint.lora import merge
from wam_ros.wam.checkpoint.metadata import EmbodimentMetadata, read_metadata
from wam_ros.wam.checkpoint.survey import Fill, Survey, survey
from wam_ros.wam.config import KeypointConfig, WamConfig
from wam_ros.wam.precision import prepare
from wam_ros.wam.stored import StoredNetwork, place

if TYPE_CHECKING:
    from wam_ros.wam.clip import ImageEncoder
    from wam_ros.wam.dit import CausalDiT
    from wam_ros.wam.keypoints import KeypointEncoder
    from wam_ros.wam.text import TextEncoder
    from wam_ros.wam.vae import VideoVae

Progress = Callable[[int, int], None]
"""Called with tensors done and tensors in all."""


@dataclass
class Networks:
    """The four networks of a model."""

    dit: CausalDiT
    text: TextEncoder
    image: ImageEncoder | KeypointEncoder
    vae: VideoVae

    def by_component(self) -> dict[str, nn.Module]:
        """The networks by the component names of `layout`."""
        return {"dit": self.dit, "text": self.text, "image": self.image, "vae": self.vae}


@dataclass
class Loaded:
    """A loaded checkpoint. Experiment and metadata are None where the folder has none."""

    config: WamConfig
    networks: Networks
    experiment: Experiment | None
    metadata: dict[str, EmbodimentMetadata] | None


def build(config: WamConfig) -> Networks:
    """The networks of a configuration without any memory for their weights (meta device)."""
    with torch.device("meta"):
        networks = _networks(config)
    for module in networks.by_component().values():
        module.eval().requires_grad_(False)
    return networks


def fresh(config: WamConfig) -> Networks:
    """The networks of a configuration as their layers initialise them, ready to be trained.

    Seed torch's generator before.
    """
    networks = _networks(config)
    for module in networks.by_component().values():
        module.eval().requires_grad_(True)
    # A transformer that starts by predicting nothing learns what matters first.
    for last in (networks.dit.head.head.weight, networks.dit.action_decoder.layer2.W):
        torch.nn.init.zeros_(last)
    return networks


def _networks(config: WamConfig) -> Networks:
    from wam_ros.wam.dit import CausalDiT
    from wam_ros.wam.text import TextEncoder
    from wam_ros.wam.vae import VideoVae

    return Networks(
        CausalDiT(config.dit),
        TextEncoder(config.t5),
        _image_encoder(config),
        VideoVae(config.vae),
    )


def _image_encoder(config: WamConfig) -> ImageEncoder | KeypointEncoder:
    if isinstance(config.clip, KeypointConfig):
        from wam_ros.wam.keypoints import KeypointEncoder

        return KeypointEncoder(config.clip)
    from wam_ros.wam.clip import ImageEncoder

    return ImageEncoder(config.clip)


def load(
    folder: Path | str,
    base: Path | str | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.bfloat16,
    progress: Progress | None = None,
    precision: str = "bf16",
) -> Loaded:
    """Load a checkpoint straight to a device and precision.

    Parameters
    ----------
    folder
        Checkpoint in the released layout; LoRA adapters in it are merged.
    base
        For LoRA-only checkpoints: the folder they were trained on; ours know it themselves.
    device, dtype
        Where the weights go; no second copy of the model exists at any time.
    progress
        Called after every tensor.
    precision
        Of the transformer's large linears (`precision.PRECISIONS`): each weight is quantised as it
        is read.

    Raises
    ------
    CheckpointError
        If anything is missing, damaged, or of another shape; names it and says what to do.
    """
    folder = Path(folder)
    found = survey(folder, Path(base) if base else None)
    found.raise_if_bad()
    networks = build(found.config)
    prepare(networks.dit, precision)
    fill(found, networks.by_component(), device, dtype, progress)
    cfg = folder / "experiment_cfg"
    experiment = read_experiment(cfg / "conf.yaml") if (cfg / "conf.yaml").is_file() else None
    metadata = read_metadata(cfg / "metadata.json") if (cfg / "metadata.json").is_file() else None
    return Loaded(found.config, networks, experiment, metadata)


@torch.no_grad()
def fill(
    found: Survey,
    modules: Mapping[str, nn.Module],
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.bfloat16,
    progress: Progress | None = None,
) -> None:
    """Fill modules built on the meta device; components without a module are skipped.

    Raises
    ------
    CheckpointError
        If a parameter of a module stays empty.
    """
    fills = [f for f in found.fills.values() if f.slot.component in modules]
    # File by file: each is mapped while it is read, and let go of before the next.
    fills.sort(key=lambda f: str(f.source.file(f.stored)))
    mapped: Path | None = None
    for done, item in enumerate(fills, start=1):
        if (path := item.source.file(item.stored)) != mapped:
            _close(found)
            mapped = path
        tensor = read(found, item).to(device=device, dtype=dtype, copy=True)
        module = modules[item.slot.component]
        if isinstance(module, StoredNetwork):
            module.place(item.slot.entry, tensor)
        else:
            place(module, item.slot.entry.name, tensor)
        if progress:
            progress(done, len(fills))
    _close(found)
    for component, module in modules.items():
        empty = [n for n, p in (*module.named_parameters(), *module.named_buffers()) if p.is_meta]
        if empty:
            raise CheckpointError(f"{component}: {empty[0]} and {len(empty) - 1} more stayed empty")
        module.to(device)


def _close(found: Survey) -> None:
    for source in (found.source, found.base):
        if source is not None:
            source.close()
    gc.collect()


def read(found: Survey, item: Fill) -> Tensor:
    """One tensor on the CPU, adapters merged."""
    tensor = item.source.get(item.stored)
    if item.adapter is None:
        return tensor
    down, up = (found.source.get(n) for n in (item.adapter.down, item.adapter.up))
    return merge(tensor, down, up, found.alpha)
