"""Write a checkpoint in the released layout."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from wam_ros.wam.checkpoint.experiment import Experiment, experiment_to_conf
from wam_ros.wam.checkpoint.layout import PREFIXES, slots
from wam_ros.wam.checkpoint.metadata import EmbodimentMetadata, metadata_to_json
from wam_ros.wam.checkpoint.source import INDEX, SINGLE
from wam_ros.wam.config import WamConfig
from wam_ros.wam.config_io import write_config
from wam_ros.wam.stored import StoredNetwork

if TYPE_CHECKING:
    from wam_ros.wam.checkpoint.load import Networks

SHARD_BYTES = 5 * 10**9


def save(
    folder: Path | str,
    config: WamConfig,
    networks: Networks,
    metadata: Mapping[str, EmbodimentMetadata] | None = None,
    experiment: Experiment | None = None,
    dtype: torch.dtype | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> list[Path]:
    """Write config, weights and experiment files; returns the weight files.

    Parameters
    ----------
    folder
        Made if need be; must not hold weights yet.
    config, networks
        What to save; a fused query-key-value projection has to be split first.
    metadata, experiment
        Content of ``experiment_cfg/metadata.json`` and ``conf.yaml``.
    dtype
        Precision to write; the networks' own by default.
    shard_bytes
        One file below this size, shards and an index above.

    Raises
    ------
    FileExistsError
        If the folder already holds weights.
    ValueError
        If a network lacks a tensor of the layout.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.glob("model*.safetensors*")):
        raise FileExistsError(f"{folder} already holds weights; choose an empty folder")
    write_config(config, folder)
    tensors = dict(stored_tensors(config, networks))
    sizes = {n: t.numel() * (dtype or t.dtype).itemsize for n, t in tensors.items()}
    files = _write(folder, _shards(sizes, shard_bytes), tensors, dtype, sum(sizes.values()))
    if metadata is not None or experiment is not None:
        (folder / "experiment_cfg").mkdir(exist_ok=True)
    if metadata is not None:
        text = json.dumps(metadata_to_json(metadata), indent=1)
        (folder / "experiment_cfg" / "metadata.json").write_text(text + "\n")
    if experiment is not None:
        import yaml

        text = yaml.safe_dump(experiment_to_conf(experiment), sort_keys=False)
        (folder / "experiment_cfg" / "conf.yaml").write_text(text)
    return files


def stored_tensors(config: WamConfig, networks: Networks) -> Iterator[tuple[str, Tensor]]:
    """Full stored name and tensor of everything the networks hold.

    Raises
    ------
    ValueError
        If a tensor of the layout is not there, or there is one the layout does not know.
    """
    known = slots(config)
    seen = set()
    for component, module in networks.by_component().items():
        state = module.stored_state() if isinstance(module, StoredNetwork) else module.state_dict()
        for name, tensor in state.items():
            full = PREFIXES[component] + name
            if full not in known:
                raise ValueError(f"{full} is no tensor of the layout; was the network changed?")
            seen.add(full)
            yield full, tensor
    lost = [n for n, slot in known.items() if slot.required and n not in seen]
    if lost:
        raise ValueError(f"{lost[0]} and {len(lost) - 1} more are missing; nothing was written")


def _shards(sizes: Mapping[str, int], limit: int) -> list[list[str]]:
    """Consecutive tensors together up to the limit; a larger one has a shard of its own."""
    shards: list[list[str]] = [[]]
    used = 0
    for name, size in sizes.items():
        if shards[-1] and used + size > limit:
            shards.append([])
            used = 0
        shards[-1].append(name)
        used += size
    return shards


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _write(
    folder: Path,
    shards: list[list[str]],
    tensors: Mapping[str, Tensor],
    dtype: torch.dtype | None,
    total: int,
) -> list[Path]:
    from safetensors.torch import save_file

    files, weight_map = [], {}
    for i, names in enumerate(shards, start=1):
        name = SINGLE if len(shards) == 1 else f"model-{i:05d}-of-{len(shards):05d}.safetensors"
        # Copies of one shard at a time: contiguous, unshared, in the precision asked for.
        part = {
            n: tensors[n].detach().to("cpu", dtype or tensors[n].dtype, copy=True).contiguous()
            for n in names
        }
        save_file(part, folder / name, metadata={"format": "pt"})
        # Some releases of safetensors write files that only their owner may read.
        (folder / name).chmod(0o666 & ~_umask())
        files.append(folder / name)
        weight_map.update(dict.fromkeys(names, name))
    if len(shards) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")
    return files
