"""The whole training of the small model: dataset in, checkpoint out.

Three stages, each stored in ``<out>/stages`` and skipped or gone on with when it is there already:
the video VAE, the text and image encoders, the transformer. The first two need nothing of each
other, so with two jobs they are trained side by side.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing as mp
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from wam_ros.children import end_with_parent
from wam_ros.contract import load_contract
from wam_ros.resources import share as share_folder
from wam_ros.sim.urdf import expand
from wam_ros.training.autoencoder import ClipLoss, latent_statistics
from wam_ros.training.episodes import Episode, Numbers
from wam_ros.training.flow import Batch, FlowLoss
from wam_ros.training.gear import GearDataset
from wam_ros.training.grounding import HindsightLoss, Readout
from wam_ros.training.latents import encode_all
from wam_ros.training.output import claim, make_room, stages_of, write_facts
from wam_ros.training.pointing import Pointing
from wam_ros.training.prepare import make_windows, measurable, split_off, with_held_out
from wam_ros.training.start import pass_noise
from wam_ros.training.trainer import Plan, Say, Trainer, digest
from wam_ros.training.vocabulary import write_tokenizer
from wam_ros.training.windows import Choice
from wam_ros.wam import prompts
from wam_ros.wam.checkpoint.load import Networks, fresh
from wam_ros.wam.checkpoint.save import save
from wam_ros.wam.config import VaeConfig, WamConfig
from wam_ros.wam.presets import small
from wam_ros.wam.rope import RotationTables
from wam_ros.wam.text import Tokenizer
from wam_ros.wam.vae import FRAMES_PER_LATENT

_ASIDE = "video.json"


@dataclass(frozen=True)
class Settings:
    """What a training may be told.

    Attributes
    ----------
    vae_minutes, encoder_minutes, dit_minutes
        Time of each stage; the learning rate has fallen by its end.
    words_share
        Share of ``encoder_minutes`` in which the text encoder learns, too; then it stays as it is.
    schedule, video_weight
        See `flow.FlowLoss`; a ``video_weight`` of 0 trains the action-only baseline.
    near_share, single_share
        See `windows.Choice`.
    sampling
        Numbers of sampling steps the small transformer is trained for (`flow.FlowLoss`).
    bf16
        Forwards in bfloat16; on a CPU the VAE's only: the others are too small to gain by it, and
        torch's attention is slower there (on a Xeon with AMX, too).
    held_out
        Share of the episodes that are only ever measured on.
    jobs
        Processes that decode videos; with two or more the VAE has one of its own.
    device
        ``cpu``, ``cuda``, or ``auto``: a GPU where there is one.
    """

    seed: int = 0
    vae_minutes: float = 8.0
    encoder_minutes: float = 12.0
    dit_minutes: float = 40.0
    vae_rate: float = 2e-3
    encoder_rate: float = 2e-3
    words_share: float = 0.4
    dit_rate: float = 1.5e-3
    batch: int = 32
    schedule: str = "shared"
    video_weight: float = 0.02
    near_share: float = 0.3
    single_share: float = 0.65
    sampling: tuple[int, ...] = (1, 2, 4)
    held_out: float = 0.03
    jobs: int = 1
    bf16: bool = False
    max_steps: int = 1_000_000
    device: str = "auto"

    @property
    def deciding(self) -> dict[str, Any]:
        """What decides what is learnt, apart from how long."""
        free = ("vae_minutes", "encoder_minutes", "dit_minutes", "max_steps", "jobs", "device")
        return {k: v for k, v in dataclasses.asdict(self).items() if k not in free}

    @property
    def levels(self) -> tuple[int, ...] | None:
        """See `flow.FlowLoss`'s ``steps``."""
        return self.sampling if self.schedule == "shared" else None

    @property
    def choice(self) -> Choice:
        """Which windows the small transformer is trained on."""
        return Choice(self.near_share, self.single_share, whole=True)

    @property
    def place(self) -> torch.device:
        """The device that ``device`` stands for."""
        found = "cuda" if torch.cuda.is_available() else "cpu"
        return torch.device(found if self.device == "auto" else self.device)


class SmallRecipe:
    """Trains `presets.small` on a dataset.

    Parameters
    ----------
    out
        Becomes the checkpoint; ``stages`` in it holds what a stopped run goes on with.

    Raises
    ------
    GearError
        ``out`` holds weights of another origin.
    """

    def __init__(self, dataset: GearDataset, out: Path, settings: Settings, say: Say) -> None:
        self.dataset, self.out, self.settings, self._say = dataset, out, settings, say
        self.stages = stages_of(out)
        self.config: WamConfig = small()
        self.seconds: dict[str, float] = {}
        self.steps: dict[str, int] = {}

    def run(self) -> Path:
        """Train what is missing and write the checkpoint; returns its folder."""
        started = time.monotonic()
        claim(self.stages, self.dataset.fingerprint(), self.settings.deciding)
        episodes = self._load()
        self.seconds["load"] = round(time.monotonic() - started, 1)
        if self.settings.jobs > 1:
            with self._video_aside():
                networks, tokenizer, train, held = self._begin(episodes)
                self._encoders(networks, train, held, tokenizer)
        return self.train(episodes)

    def train(self, episodes: Sequence[Episode]) -> Path:
        """Every stage in turn; one that is done already is only read."""
        networks, tokenizer, train, held = self._begin(episodes)
        self._say(f"{len(train)} episodes to train on, {len(held)} held out")
        self._vae(networks, train)
        self._encoders(networks, train, held, tokenizer)
        self._transformer(networks, train, held, tokenizer)
        return self._write(networks)

    def video(self) -> None:
        """The VAE, and the latents of all episodes, for a run that has its encoders to train."""
        s = self.settings
        networks, _, train, held = self._begin(self._load())
        self._vae(networks, train)
        started = time.monotonic()
        for part, seed in ((train, s.seed), (held, s.seed + 1)):
            encode_all(
                networks.vae,
                part,
                self.config.dit.num_frame_per_block,
                self.config.head.blocks_alone,
                seed,
                self.stages,
                self._encoded,
                s.bf16,
            )
        self.seconds["encode"] = round(time.monotonic() - started, 1)
        (self.stages / _ASIDE).write_text(json.dumps(self.seconds))

    def _encoded(self, done: int, count: int) -> None:
        if done % 100 == 0 or done == count:
            self._say(f"{done} of {count} episodes encoded")

    @contextmanager
    def _video_aside(self) -> Iterator[None]:
        """`video` in a process of its own, half the threads for each."""
        threads = torch.get_num_threads()
        half = max(1, threads // 2)
        process = mp.get_context("spawn").Process(
            target=_video, args=(self.dataset.folder, self.out, self.settings, half), daemon=True
        )
        process.start()
        torch.set_num_threads(half)

        def alive() -> None:
            if process.exitcode:
                raise RuntimeError(f"the VAE's process ended with {process.exitcode}; see above")

        def say(line: str) -> None:
            told(line)
            alive()  # without its latents the encoders would learn for nothing

        told, self._say = self._say, say
        try:
            yield
            process.join()
        finally:
            self._say = told
            torch.set_num_threads(threads)
            process.terminate()
        alive()
        self.seconds.update(json.loads((self.stages / _ASIDE).read_text()))

    def _load(self) -> list[Episode]:
        h = self.config.head
        size = (h.video_height, h.video_width)
        return self.dataset.load(size, self.stages / "frames", jobs=self.settings.jobs)

    def _begin(
        self, episodes: Sequence[Episode]
    ) -> tuple[Networks, Tokenizer, list[Episode], list[Episode]]:
        """Untrained networks, the same for the same episodes and seed; train and held-out part."""
        s, tag = self.settings, self.dataset.tag
        train, held = split_off(episodes, s.held_out, s.seed)
        texts = sorted({prompts.prompt(t, tag) for e in episodes for t in set(e.text)})
        vocab = write_tokenizer(self.out / "tokenizer", texts, self.config.t5.vocab)
        self.config = small(max(vocab, 8))
        tokenizer = Tokenizer(self.out / "tokenizer", self.config.dit.text_len)
        torch.manual_seed(s.seed)
        networks = fresh(self.config)
        pass_noise(networks.dit)
        for module in networks.by_component().values():
            module.to(s.place)
        return networks, tokenizer, train, held

    @property
    def _numbers(self) -> Numbers:
        return self.dataset.numbers(self.config.dit.max_state_dim, self.config.dit.action_dim)

    def _plan(self, minutes: float, rate: float, **more: Any) -> Plan:
        s = self.settings
        return Plan(s.max_steps, rate, minutes=minutes, **{"bf16": s.bf16, **more})

    # ------------------------------------------------------------------ stages

    def _vae(self, networks: Networks, episodes: Sequence[Episode]) -> None:
        s = self.settings
        clip = 1 + FRAMES_PER_LATENT * self.config.dit.num_frame_per_block
        loss = ClipLoss(networks.vae, episodes, batch=12, frames=clip, seed=s.seed)
        trainer = Trainer(
            "vae",
            [networks.vae],
            loss,
            self._plan(s.vae_minutes, s.vae_rate, ema=0.995),
            self.stages,
            self._say,
        )
        self._finish(trainer)
        config = self._statistics(networks, episodes, trainer.step)
        self.config = dataclasses.replace(self.config, vae=config)
        networks.vae.configure(config)
        networks.vae.requires_grad_(False)

    def _statistics(self, networks: Networks, episodes: Sequence[Episode], step: int) -> VaeConfig:
        """Measured once: other threads would round otherwise, and every latent be encoded anew."""
        file, config = self.stages / "statistics.json", networks.vae.config
        kept = json.loads(file.read_text()) if file.is_file() else {}
        if kept.get("step") == step:
            mean, std = tuple(kept["mean"]), tuple(kept["std"])
            return dataclasses.replace(config, latents_mean=mean, latents_std=std)
        config = latent_statistics(networks.vae, episodes, seed=self.settings.seed)
        found = {"step": step, "mean": config.latents_mean, "std": config.latents_std}
        file.write_text(json.dumps(found))
        return config

    def _encoders(
        self,
        networks: Networks,
        train: Sequence[Episode],
        held: Sequence[Episode],
        tokenizer: Tokenizer,
    ) -> None:
        s, numbers, tag = self.settings, self._numbers, self.dataset.tag
        readout = Readout(self.config.dit.image_dim, numbers.state_width).to(s.place)

        pointing = self._pointing()

        def make(episodes: Sequence[Episode]) -> HindsightLoss:
            return HindsightLoss(
                networks.text,
                networks.image,
                readout,
                episodes,
                numbers,
                lambda t: tokenizer(prompts.prompt(t, tag)),
                seed=s.seed,
                places=[pointing.places(e) for e in episodes] if pointing else None,
            )

        losses = [make(train)]
        losses[0].calibrate()
        measured = measurable("encoders", lambda: make(held), self._say) if held else None
        losses += [measured] if measured else []
        for name, share in (("words", s.words_share), ("places", 1 - s.words_share)):
            if share <= 0:
                continue
            read = [networks.text] if name == "words" else []
            trainer = Trainer(
                name,
                [*read, networks.image, readout],
                with_held_out(losses[0], measured),
                self._plan(
                    share * s.encoder_minutes,
                    s.encoder_rate,
                    ema=0.995,
                    bf16=s.bf16 and s.place.type == "cuda",
                ),
                self.stages,
                self._say,
                upstream="" if read else digest(networks.text),
            )
            self._finish(trainer)
            networks.text.requires_grad_(False)
            for loss in losses:
                loss.keep_text()
        networks.image.requires_grad_(False)

    def _pointing(self) -> Pointing | None:
        """Where views show what an instruction is about; None where that cannot be known."""
        file = self.dataset.folder / "meta" / "contract.yaml"
        if not file.is_file():
            return None
        contract = load_contract(file)
        path = Path(contract.urdf)
        urdf = expand(path if path.is_absolute() else share_folder() / path)
        return Pointing.find(contract, urdf, self.dataset.keys("state"), self.dataset.cameras)

    def _transformer(
        self,
        networks: Networks,
        train: Sequence[Episode],
        held: Sequence[Episode],
        tokenizer: Tokenizer,
    ) -> None:
        s, dit = self.settings, networks.dit
        dit.rotations = RotationTables(dit.config.head_dim, real=True)
        dit.seeing_states = True
        on_gpu = dit.patch_embedding.weight.is_cuda

        def make(episodes: Sequence[Episode], seed: int) -> FlowLoss:
            started = time.monotonic()
            windows = make_windows(
                networks,
                self.config,
                episodes,
                self._numbers,
                tokenizer,
                self.dataset.tag,
                seed,
                self.stages,
                s.choice,
                bf16=s.bf16,
            )
            spent = self.seconds.get("encode", 0.0) + time.monotonic() - started
            self.seconds["encode"] = round(spent, 1)
            return FlowLoss(
                dit,
                lambda rng: Batch.of(windows.draw(rng, s.batch)),
                s.schedule,
                s.video_weight,
                seed=seed,
                steps=s.levels,
            )

        trainer = Trainer(
            "dit",
            [dit],
            with_held_out(
                make(train, s.seed),
                measurable("dit", lambda: make(held, s.seed + 1), self._say) if held else None,
            ),
            self._plan(s.dit_minutes, s.dit_rate, bf16=s.bf16 and on_gpu),
            self.stages,
            self._say,
            upstream=digest(networks.vae, networks.text, networks.image),
        )
        self._finish(trainer)

    def _finish(self, trainer: Trainer) -> None:
        trainer.run()
        trainer.use_average()
        self.seconds[trainer.name] = round(trainer.seconds, 1)
        self.steps[trainer.name] = trainer.step

    # ------------------------------------------------------------------ the checkpoint

    def _write(self, networks: Networks) -> Path:
        metadata, experiment = {self.dataset.tag: self.dataset.metadata}, self.dataset.experiment()
        make_room(self.out)
        save(self.out, self.config, networks, metadata, experiment, dtype=torch.bfloat16)
        settings = dataclasses.asdict(self.settings)
        write_facts(self.out, self.dataset, settings, self.seconds, self.steps)
        return self.out


def _video(dataset: Path, out: Path, settings: Settings, threads: int) -> None:
    end_with_parent()
    torch.set_num_threads(threads)
    SmallRecipe(GearDataset.open(dataset), out, settings, print).video()
