"""The whole training of the small model: dataset in, checkpoint out.

Three stages, each stored in ``<out>/stages`` and skipped or gone on with when it is there already:
the video VAE, the text and image encoders, the transformer.
"""

from __future__ import annotations

import dataclasses
import json
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from wam_ros.training.autoencoder import ClipLoss, latent_statistics
from wam_ros.training.episodes import Episode, Numbers
from wam_ros.training.flow import Batch, FlowLoss
from wam_ros.training.gear import GearDataset
from wam_ros.training.grounding import HindsightLoss, Readout
from wam_ros.training.prepare import make_windows, split_off, with_held_out
from wam_ros.training.trainer import Plan, Say, Trainer
from wam_ros.training.vocabulary import write_tokenizer
from wam_ros.wam import prompts
from wam_ros.wam.checkpoint.load import Networks, fresh
from wam_ros.wam.checkpoint.save import save
from wam_ros.wam.config import WamConfig, small
from wam_ros.wam.rope import RotationTables
from wam_ros.wam.text import Tokenizer


@dataclass(frozen=True)
class Settings:
    """What a training may be told.

    Attributes
    ----------
    vae_minutes, encoder_minutes, dit_minutes
        Time of each stage; the learning rate has fallen by its end.
    schedule, video_weight
        See `flow.FlowLoss`; a ``video_weight`` of 0 trains the action-only baseline.
    bf16
        Forwards in bfloat16: twice as fast for the encoders on processors that have it. On a CPU
        the transformer gains nothing and stays in float32.
    held_out
        Share of the episodes that are only ever measured on.
    """

    seed: int = 0
    vae_minutes: float = 8.0
    encoder_minutes: float = 12.0
    dit_minutes: float = 40.0
    vae_rate: float = 2e-3
    encoder_rate: float = 2e-3
    dit_rate: float = 1.5e-3
    batch: int = 32
    schedule: str = "shared"
    video_weight: float = 0.3
    held_out: float = 0.03
    jobs: int = 1
    bf16: bool = False
    max_steps: int = 1_000_000


class SmallRecipe:
    """Trains `config.small` on a dataset.

    Parameters
    ----------
    out
        Becomes the checkpoint; ``stages`` in it holds what a stopped run goes on with.
    """

    def __init__(self, dataset: GearDataset, out: Path, settings: Settings, say: Say) -> None:
        self.dataset, self.out, self.settings, self._say = dataset, out, settings, say
        self.stages = out / "stages"
        self.config: WamConfig = small()
        self.seconds: dict[str, float] = {}

    def run(self) -> Path:
        """Train what is missing and write the checkpoint; returns its folder."""
        s, h = self.settings, self.config.head
        torch.manual_seed(s.seed)
        started = time.monotonic()
        episodes = self.dataset.load(
            (h.video_height, h.video_width), self.stages / "frames", jobs=s.jobs
        )
        self.seconds["load"] = time.monotonic() - started
        return self.train(episodes)

    def train(self, episodes: Sequence[Episode]) -> Path:
        """The same from loaded episodes."""
        s = self.settings
        train, held = split_off(episodes, s.held_out, s.seed)
        self._say(f"{len(train)} episodes to train on, {len(held)} held out")
        tag = self.dataset.tag
        texts = sorted({prompts.prompt(t, tag) for e in episodes for t in set(e.text)})
        vocab = write_tokenizer(self.out / "tokenizer", texts, self.config.t5.vocab)
        self.config = small(max(vocab, 8))
        tokenizer = Tokenizer(self.out / "tokenizer", self.config.dit.text_len)
        torch.manual_seed(s.seed)
        networks = fresh(self.config)
        self._vae(networks, train)
        numbers = self.dataset.numbers(self.config.dit.max_state_dim, self.config.dit.action_dim)
        self._encoders(networks, train, held, numbers, lambda t: tokenizer(prompts.prompt(t, tag)))
        self._transformer(networks, train, held, numbers, tokenizer)
        return self._write(networks)

    def _plan(self, minutes: float, rate: float, **more: Any) -> Plan:
        s = self.settings
        return Plan(s.max_steps, rate, minutes=minutes, **{"bf16": s.bf16, **more})

    # ------------------------------------------------------------------ stages

    def _vae(self, networks: Networks, episodes: Sequence[Episode]) -> None:
        s = self.settings
        loss = ClipLoss(networks.vae, episodes, batch=12, seed=s.seed)
        trainer = Trainer(
            "vae",
            [networks.vae],
            loss,
            self._plan(s.vae_minutes, s.vae_rate, ema=0.995),
            self.stages,
            self._say,
        )
        self._finish(trainer)
        config = latent_statistics(networks.vae, episodes, seed=s.seed)
        self.config = dataclasses.replace(self.config, vae=config)
        networks.vae.configure(config)
        networks.vae.requires_grad_(False)

    def _encoders(
        self,
        networks: Networks,
        train: Sequence[Episode],
        held: Sequence[Episode],
        numbers: Numbers,
        tokenize: Callable[[str], tuple[torch.Tensor, torch.Tensor]],
    ) -> None:
        s = self.settings
        readout = Readout(self.config.dit.image_dim, numbers.state_width)

        def make(episodes: Sequence[Episode]) -> HindsightLoss:
            return HindsightLoss(
                networks.text, networks.image, readout, episodes, numbers, tokenize, seed=s.seed
            )

        measured = make(train)
        measured.calibrate()
        trainer = Trainer(
            "encoders",
            [networks.text, networks.image, readout],
            with_held_out(measured, make(held) if held else None),
            self._plan(s.encoder_minutes, s.encoder_rate, ema=0.995),
            self.stages,
            self._say,
        )
        self._finish(trainer)
        networks.text.requires_grad_(False)
        networks.image.requires_grad_(False)

    def _transformer(
        self,
        networks: Networks,
        train: Sequence[Episode],
        held: Sequence[Episode],
        numbers: Numbers,
        tokenizer: Tokenizer,
    ) -> None:
        s, dit = self.settings, networks.dit
        dit.rotations = RotationTables(dit.config.head_dim, real=True)
        on_gpu = dit.patch_embedding.weight.is_cuda

        def make(episodes: Sequence[Episode], seed: int) -> FlowLoss:
            started = time.monotonic()
            windows = make_windows(
                networks,
                self.config,
                episodes,
                numbers,
                tokenizer,
                self.dataset.tag,
                seed,
                self.stages,
            )
            spent = self.seconds.get("encode", 0.0) + time.monotonic() - started
            self.seconds["encode"] = round(spent, 1)
            return FlowLoss(
                dit,
                lambda rng: Batch.of(windows.draw(rng, s.batch)),
                s.schedule,
                s.video_weight,
                seed=seed,
            )

        trainer = Trainer(
            "dit",
            [dit],
            with_held_out(make(train, s.seed), make(held, s.seed + 1) if held else None),
            self._plan(s.dit_minutes, s.dit_rate, bf16=s.bf16 and on_gpu),
            self.stages,
            self._say,
        )
        self._finish(trainer)

    def _finish(self, trainer: Trainer) -> None:
        trainer.run()
        trainer.use_average()
        self.seconds[trainer.name] = round(trainer.seconds, 1)

    # ------------------------------------------------------------------ the checkpoint

    def _write(self, networks: Networks) -> Path:
        metadata, experiment = {self.dataset.tag: self.dataset.metadata}, self.dataset.experiment()
        for old in self.out.glob("model*.safetensors*"):
            old.unlink()
        save(self.out, self.config, networks, metadata, experiment, dtype=torch.bfloat16)
        facts = {
            "settings": dataclasses.asdict(self.settings),
            "dataset": {
                "episodes": len(self.dataset.length),
                "rows": sum(self.dataset.length.values()),
                "tasks": len(self.dataset.tasks),
            },
            "seconds": self.seconds,
            "machine": platform.processor() or platform.machine(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }
        (self.out / "training.json").write_text(json.dumps(facts, indent=2) + "\n")
        return self.out
