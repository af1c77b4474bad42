"""Fine-tune the transformer of a checkpoint on a dataset, in full or by low-rank adapters."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Container, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml

from wam_ros.training.episodes import Episode
from wam_ros.training.flow import Batch, Condition, FlowLoss, TeacherForcing
from wam_ros.training.gear import GearDataset, GearError
from wam_ros.training.lora import LoraLinear, add_lora, save_lora
from wam_ros.training.output import claim, make_room, stages_of, write_facts
from wam_ros.training.prepare import make_windows, measurable, split_off, with_held_out
from wam_ros.training.ranks import Ranks
from wam_ros.training.recipe import Settings
from wam_ros.training.sharding import gather, shard
from wam_ros.training.trainer import Plan, Say, Trainer
from wam_ros.training.windows import RELEASED, Windows
from wam_ros.wam import prompts
from wam_ros.wam.checkpoint.experiment import Experiment, experiment_to_conf
from wam_ros.wam.checkpoint.load import Loaded
from wam_ros.wam.checkpoint.metadata import EmbodimentMetadata, metadata_to_json
from wam_ros.wam.checkpoint.origin import FILE as ADAPTERS
from wam_ros.wam.checkpoint.origin import weights_name
from wam_ros.wam.checkpoint.save import save
from wam_ros.wam.conditioning import WindowConditioning, to_video
from wam_ros.wam.config import KeypointConfig, WamConfig
from wam_ros.wam.rope import RotationTables
from wam_ros.wam.text import Tokenizer

TUNING_RATE, RELEASED_RATE = 3e-4, 1e-5
RELEASED_VIDEO_WEIGHT = 0.3
_AS_TRAINED = ("schedule", "video_weight", "near_share", "single_share", "sampling")


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
    ranks: Ranks | None = None,
) -> Path:
    """Train the transformer of ``loaded`` (from folder ``base``) and write a checkpoint to ``out``.

    The encoders stay as they are. Statistics are the dataset's where the checkpoint has none for
    its embodiment, else the checkpoint's: its weights were trained with them. With ``ranks`` the
    transformer is split among them.

    Raises
    ------
    GearError
        If the dataset does not fit the checkpoint's sizes, or the batch not the ranks, or ``out``
        holds weights of another origin or stages of another training.
    """
    config, networks, tag = loaded.config, loaded.networks, dataset.tag
    known = (loaded.metadata or {}).get(tag)
    if known is not None:
        _same_size(dataset, known)
        dataset = dataclasses.replace(dataset, metadata=known)
    _check(dataset, loaded)
    experiment = merged(loaded.experiment, dataset.experiment())
    share = (0, 1) if ranks is None else (ranks.rank, ranks.world)
    if settings.batch % share[1]:
        raise GearError(f"--batch {settings.batch} does not divide among {share[1]} processes")
    if out.resolve() == base.resolve():
        raise GearError(f"--out is the checkpoint to fine-tune, {base}: choose another folder")
    if lora and (base / ADAPTERS).is_file():
        raise GearError(
            f"{base} holds adapters itself, and adapters on adapters cannot be stored: leave out "
            "--lora, or start from the checkpoint that they were trained on"
        )
    stages = stages_of(out)
    if ranks is not None and not ranks.first:
        say = _nothing
    else:
        origin = {"lora": lora, "checkpoint": weights_name(base)}
        claim(stages, dataset.fingerprint(), {**origin, **settings.deciding})
    with nullcontext() if ranks is None else ranks.in_turn():
        if episodes is None:
            size = (config.head.video_height, config.head.video_width)
            episodes = dataset.load(size, stages / "frames", jobs=settings.jobs)
        numbers = dataset.numbers(config.dit.max_state_dim, config.dit.action_dim)
        parts = split_off(episodes, settings.held_out, settings.seed)
        choice = settings.choice if ours(config) else RELEASED

        def encoded(part: Sequence[Episode], seed: int) -> Windows:
            return make_windows(
                networks, config, part, numbers, tokenizer, tag, seed, stages, choice
            )

        train = encoded(parts[0], settings.seed)
        held = None
        if parts[1]:
            held = measurable("finetune", lambda: encoded(parts[1], settings.seed + 1), say)
    dit = networks.dit
    dit.rotations = RotationTables(dit.config.head_dim, real=True)
    # Each as it was trained: ours as it is run, the released ones with blind states.
    dit.seeing_states = ours(config)
    torch.manual_seed(settings.seed)
    if lora:
        adapters = add_lora(dit, config)
    else:
        dit.requires_grad_(True)
    model = TeacherForcing(dit) if ranks is None else shard(dit, ranks)
    condition = _opening_latents(loaded) if config.dit.concat_first_frame_latent else None

    def make(source: Windows, seed: int) -> FlowLoss:
        return FlowLoss(
            model,
            lambda rng: Batch.of(source.draw(rng, settings.batch)),
            settings.schedule,
            settings.video_weight,
            seed=seed,
            condition=condition,
            part=share,
            steps=settings.levels if ours(config) else None,
        )

    plan = Plan(
        settings.max_steps,
        settings.dit_rate,
        minutes=settings.dit_minutes,
        bf16=ranks is None and (settings.bf16 or (not lora and next(dit.parameters()).is_cuda)),
    )
    measured = make(held, settings.seed + 1) if held is not None else None
    trainer = Trainer(
        "lora" if lora else "dit",
        [model],
        with_held_out(make(train, settings.seed), measured),
        plan,
        stages,
        say,
        ranks,
    )
    trainer.run()
    trainer.use_average()
    if ranks is not None:
        gather(dit, ranks)
        if not ranks.first:
            return out
    make_room(out)
    _write(loaded, base, tokenizer, dataset, experiment, out, adapters if lora else None)
    origin = {"lora": lora, "checkpoint": str(base)}
    spent, steps = round(trainer.seconds, 1), trainer.step
    facts = {**origin, **dataclasses.asdict(settings)}
    write_facts(out, dataset, facts, {trainer.name: spent}, {trainer.name: steps})
    return out


def _nothing(line: str) -> None:
    """What the processes but the first one say."""


def _write(
    loaded: Loaded,
    base: Path,
    tokenizer: Tokenizer,
    dataset: GearDataset,
    experiment: Experiment,
    out: Path,
    adapters: dict[str, LoraLinear] | None,
) -> None:
    """The tuned checkpoint, whole: it loads without the options that its base needed."""
    metadata = {**(loaded.metadata or {}), dataset.tag: dataset.metadata}
    tokenizer.copy_to(out / "tokenizer")
    dit = loaded.networks.dit
    if adapters is None:
        # Trained on GPUs it is float32, twice what the release stores.
        dtype = torch.bfloat16 if next(dit.parameters()).is_cuda else None
        save(out, loaded.config, loaded.networks, metadata, experiment, dtype)
        return
    save_lora(out, loaded.config, dit, adapters, base)
    (out / "experiment_cfg").mkdir(exist_ok=True)
    text = json.dumps(metadata_to_json(metadata), indent=1)
    (out / "experiment_cfg" / "metadata.json").write_text(text + "\n")
    conf = yaml.safe_dump(experiment_to_conf(experiment), sort_keys=False)
    (out / "experiment_cfg" / "conf.yaml").write_text(conf)


def ours(config: WamConfig) -> bool:
    """Whether a checkpoint is of the small recipe's kind; it is tuned as it was trained."""
    return isinstance(config.clip, KeypointConfig)


def suited(settings: Settings, config: WamConfig, base: Path, asked: Container[str]) -> Settings:
    """Settings for fine-tuning a checkpoint, but for what was ``asked`` for by name.

    The released models were tuned with the usual weight on the video and a learning rate of 1e-5
    (SPEC section 7). One of ours is tuned as its ``training.json`` says it was trained, at a fifth
    of the recipe's rate.
    """
    if not ours(config):
        wanted: dict[str, Any] = {"dit_rate": RELEASED_RATE, "video_weight": RELEASED_VIDEO_WEIGHT}
    else:
        file = base / "training.json"
        said = json.loads(file.read_text())["settings"] if file.is_file() else {}
        wanted = {k: said[k] for k in _AS_TRAINED if k in said}
        if "sampling" in wanted:
            wanted["sampling"] = tuple(wanted["sampling"])
        wanted["dit_rate"] = TUNING_RATE
    return replace(settings, **{k: v for k, v in wanted.items() if k not in asked})


def merged(known: Experiment | None, new: Experiment) -> Experiment:
    """What a fine-tuned checkpoint says of all its embodiments; ``new`` wins for its own.

    Raises
    ------
    GearError
        The checkpoint takes all actions as absolute, the data set trains some as relative.
    """
    if known is None:
        return new
    others = {tag: setup for tag, setup in known.embodiments.items() if tag not in new.embodiments}
    if others and new.relative and not known.relative:
        raise GearError(
            f"the checkpoint's other embodiments ({', '.join(others)}) have absolute actions, this "
            "data set's are relative to the state: one checkpoint cannot hold both"
        )
    keys = tuple(dict.fromkeys((*known.relative, *new.relative)))
    return Experiment({**others, **new.embodiments}, bool(keys), keys, False)


def _opening_latents(loaded: Loaded) -> Condition:
    """What a transformer of the 14B's kind is shown of the window's first frame."""
    vae, head = loaded.networks.vae, loaded.config.head
    size = (head.video_height, head.video_width)

    @torch.no_grad()
    def condition(opening: torch.Tensor, latents: int) -> torch.Tensor:
        frame = to_video(opening[:, None], size, vae.dtype, vae.device)
        found = WindowConditioning(vae, frame, latents, concat=True, lazy=False).y(0, latents)
        assert found is not None
        return found

    return condition


def _same_size(dataset: GearDataset, known: EmbodimentMetadata) -> None:
    """A network looks for things where they were in its training: views have to be as large."""
    ours, theirs = dataset.metadata.resolution, known.resolution
    if ours and theirs and ours != theirs:
        a, b = (f"{width}x{height}" for width, height in (ours, theirs))
        raise GearError(
            f"the dataset's views are {a}, the checkpoint was trained on {b}: "
            f"convert the bags again with `wam dataset --size {b}`"
        )


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
