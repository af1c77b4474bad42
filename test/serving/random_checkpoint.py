"""Tiny checkpoints with random weights in the released layout, for every embodiment there is."""

from __future__ import annotations

import dataclasses
from pathlib import Path

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


def write_checkpoint(folder: Path, rows: int = 24, seed: int = 0) -> Path:
    """Save a model that gives ``rows`` action rows, with the statistics of all embodiments."""
    import torch

    from wam_ros.wam.checkpoint.load import Networks
    from wam_ros.wam.checkpoint.metadata import read_metadata
    from wam_ros.wam.checkpoint.save import save
    from wam_ros.wam.clip import ImageEncoder
    from wam_ros.wam.config import tiny
    from wam_ros.wam.dit import CausalDiT
    from wam_ros.wam.text import TextEncoder
    from wam_ros.wam.vae import VideoVae

    torch.set_num_threads(1)  # two that wait for each other are slower on a busy machine
    config = tiny(action_rows=rows)
    # As wide as the released models, so that every robot's vectors fit.
    config = dataclasses.replace(
        config, dit=dataclasses.replace(config.dit, action_dim=32, max_state_dim=64)
    )
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
    save(folder, config, networks, read_metadata(GOLDEN / "metadata.json"))
    write_tokenizer(folder / "tokenizer")
    return folder
