"""Tiny checkpoints with random weights in the released layout, for every embodiment there is."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

GOLDEN = Path(__file__).resolve().parent.parent / "data" / "golden"
WORDS = "pick up the cup robot view stay where you are a touch red block"


def write_tokenizer(folder: Path) -> None:
    """A word tokenizer in the files that google/umt5-xxl has."""
    from tokenizers import Tokenizer as Core
    from tokenizers import models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "</s>", "<unk>", *WORDS.split()]
    core = Core(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(str(folder))


def write_checkpoint(
    folder: Path,
    rows: int = 24,
    seed: int = 0,
    reach: float | None = None,
    widths: tuple[int, int] = (32, 64),
) -> Path:
    """Save a model that gives ``rows`` action rows, with the statistics of all embodiments.

    ``reach`` replaces the bounds of every action by plus and minus so much: the recorded ones are
    made up, and further from the measured state than an executor lets a chunk start. ``widths`` are
    those of action and state; by default the released models', so that every robot's vectors fit.
    """
    import torch

    from wam_ros.wam.checkpoint.load import Networks
    from wam_ros.wam.checkpoint.metadata import read_metadata
    from wam_ros.wam.checkpoint.save import save
    from wam_ros.wam.clip import ImageEncoder
    from wam_ros.wam.dit import CausalDiT
    from wam_ros.wam.presets import tiny
    from wam_ros.wam.text import TextEncoder
    from wam_ros.wam.vae import VideoVae

    torch.set_num_threads(1)  # two that wait for each other are slower on a busy machine
    config = tiny(action_rows=rows)
    dit = dataclasses.replace(config.dit, action_dim=widths[0], max_state_dim=widths[1])
    config = dataclasses.replace(config, dit=dit)
    networks = Networks(
        CausalDiT(config.dit), TextEncoder(config.t5), ImageEncoder(config.clip),
        VideoVae(config.vae),
    )  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    for module in networks.by_component().values():
        module.eval().requires_grad_(False)
        for p in module.parameters():
            p.normal_(0.0, 0.1, generator=generator)
    for entry in networks.image.entries:
        if not entry.targets:
            networks.image.unused[entry.name] = torch.randn(entry.shape, generator=generator)
    metadata = read_metadata(GOLDEN / "metadata.json")
    if reach is not None:
        metadata = {tag: _within(m, reach) for tag, m in metadata.items()}
    save(folder, config, networks, metadata)
    write_tokenizer(folder / "tokenizer")
    return folder


def _within(metadata: Any, reach: float) -> Any:
    """The same embodiment with actions of at most ``reach``."""
    narrow = {
        key: dataclasses.replace(
            found,
            min=np.full_like(found.min, -reach), max=np.full_like(found.max, reach),
            q01=np.full_like(found.q01, -reach), q99=np.full_like(found.q99, reach),
        )
        for key, found in metadata.action_statistics.items()
    }  # fmt: skip
    return dataclasses.replace(metadata, action_statistics=narrow)
