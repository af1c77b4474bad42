"""Fine-tune the transformer of a checkpoint on a dataset, in full or by low-rank adapters."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import torch
import yaml

from wam_ros.training.episodes import Episode
from wam_ros.training.flow import Batch, FlowLoss
from wam_ros.training.gear import GearDataset, GearError
from wam_ros.training.lora import add_lora, save_lora
from wam_ros.training.prepare import make_windows, split_off, with_held_out
from wam_ros.training.recipe import Settings
from wam_ros.training.trainer import Plan, Say, Trainer
from wam_ros.wam import prompts
from wam_ros.wam.checkpoint.experiment import experiment_to_conf
from wam_ros.wam.checkpoint.load import Loaded
from wam_ros.wam.checkpoint.metadata import metadata_to_json
from wam_ros.wam.checkpoint.save import save
from wam_ros.wam.rope import RotationTables
from wam_ros.wam.text import Tokenizer


def finetune(
    loaded: Loaded,
    base: Path,
    tokenizer: Tokenizer,
    dataset: GearDataset,
    out: Path,
    settings: Settings,
    say: Say,
    lora: bool = False,
    episodes: Sequence[Episode] | None = None,
) -> Path:
    """Train the transformer of ``loaded`` (from folder ``base``) and write a checkpoint to ``out``.

    The encoders stay as they are. Statistics are the dataset's where the checkpoint has none for
    its embodiment, else the checkpoint's: its weights were trained with them.

    Raises
    ------
    GearError
        If the dataset does not fit the checkpoint's sizes.
    """
    config, networks, tag = loaded.config, loaded.networks, dataset.tag
    known = (loaded.metadata or {}).get(tag)
    if known is not None:
        dataset = dataclasses.replace(dataset, metadata=known)
    _check(dataset, loaded)
    if episodes is None:
        size = (config.head.video_height, config.head.video_width)
        episodes = dataset.load(size, out / "stages" / "frames", jobs=settings.jobs)
    numbers = dataset.numbers(config.dit.max_state_dim, config.dit.action_dim)
    train, held = split_off(episodes, settings.held_out, settings.seed)
    dit = networks.dit
    dit.rotations = RotationTables(dit.config.head_dim, real=True)
    torch.manual_seed(settings.seed)
    if lora:
        adapters = add_lora(dit, config)
    else:
        dit.requires_grad_(True)

    def make(part: Sequence[Episode], seed: int) -> FlowLoss:
        windows = make_windows(
            networks, config, part, numbers, tokenizer, tag, seed, out / "stages"
        )
        return FlowLoss(
            dit,
            lambda rng: Batch.of(windows.draw(rng, settings.batch)),
            settings.schedule,
            settings.video_weight,
            seed=seed,
        )

    plan = Plan(
        settings.max_steps,
        settings.dit_rate,
        minutes=settings.dit_minutes,
        bf16=settings.bf16,
    )
    loss = make(train, settings.seed)
    trainer = Trainer(
        "lora" if lora else "dit",
        [dit],
        with_held_out(loss, make(held, settings.seed + 1) if held else None),
        plan,
        out / "stages",
        say,
    )
    trainer.run()
    trainer.use_average()
    metadata, experiment = {**(loaded.metadata or {}), tag: dataset.metadata}, dataset.experiment()
    if not lora:
        save(out, config, networks, metadata, experiment)
        return out
    save_lora(out, config, dit, adapters, base)
    (out / "experiment_cfg").mkdir(exist_ok=True)
    text = json.dumps(metadata_to_json(metadata), indent=1)
    (out / "experiment_cfg" / "metadata.json").write_text(text + "\n")
    conf = yaml.safe_dump(experiment_to_conf(experiment), sort_keys=False)
    (out / "experiment_cfg" / "conf.yaml").write_text(conf)
    return out


def _check(dataset: GearDataset, loaded: Loaded) -> None:
    prompts.prompt("", dataset.tag)  # raises for an embodiment without a template
    c = loaded.config.dit
    for kind, limit in (("state", c.max_state_dim), ("action", c.action_dim)):
        statistics = getattr(dataset.metadata, f"{kind}_statistics")
        keys = dataset.keys(kind)
        missing = [k for k in keys if k not in statistics]
        if missing:
            raise GearError(f"the checkpoint has no statistics of {kind} '{missing[0]}'")
        width = sum(statistics[k].dim for k in keys)
        if width > limit:
            raise GearError(f"the dataset's {kind} has {width} values, the model takes {limit}")
    setup = loaded.experiment.embodiments.get(dataset.tag) if loaded.experiment else None
    if setup and setup.fps and abs(setup.fps - dataset.fps) > 1e-6:
        raise GearError(
            f"the dataset has {dataset.fps:g} rows a second, the checkpoint was trained on "
            f"{setup.fps:g}"
        )
