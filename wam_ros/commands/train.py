"""`wam train`: from a GEAR dataset to a checkpoint."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from pathlib import Path
from typing import Any

EPILOG = """\
examples:
  wam train touch_data --out my_wam                      the small model, from nothing, on a CPU
  wam train touch_data --out my_wam                      again: goes on where it was stopped
  wam train my_task --out tuned --from my_wam            fine-tune a checkpoint in full
  wam train my_task --out tuned --from DreamZero-AgiBot --lora     or by low-rank adapters
  torchrun --nproc-per-node 8 -m wam_ros.cli train my_task --out tuned --from DreamZero-AgiBot
                                         the same on eight GPUs, the transformer split among them
  wam train --check 14b --lora                           do the 14B's shapes fit? (no memory needed)
"""


def add_parser(sub: Any) -> None:
    """Add train."""
    p = sub.add_parser(
        "train",
        help="train or fine-tune a World-Action Model on a dataset",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("dataset", nargs="?", type=Path, help="folder that `wam dataset` wrote")
    p.add_argument("--out", type=Path, help="becomes the checkpoint's folder")
    p.add_argument("--from", dest="base", type=Path, help="checkpoint to fine-tune")
    p.add_argument("--lora", action="store_true", help="train low-rank adapters only")
    p.add_argument("--tokenizer", type=Path, help="folder; the checkpoint's own by default")
    p.add_argument("--check", choices=("14b", "5b", "small"), help="check shapes and stop")
    p.add_argument("--schedule", choices=("shared", "decoupled"), help="of the noise (shared)")
    p.add_argument("--action-only", action="store_true", help="no loss on the video (a baseline)")
    p.add_argument("--minutes", type=float, help="of the transformer's stage (default 40)")
    p.add_argument("--vae-minutes", type=float, help="default 8")
    p.add_argument("--encoder-minutes", type=float, help="default 12")
    p.add_argument("--steps", type=int, help="most steps of each stage")
    p.add_argument(
        "--rate",
        type=float,
        help="learning rate of the transformer (from nothing 1.5e-3; a small model 3e-4, another "
        "1e-5)",
    )
    p.add_argument("--batch", type=int, help="windows per step (default 32)")
    p.add_argument("--bf16", action="store_true", help="forwards in bfloat16")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda")
    p.add_argument("--threads", type=int, default=0, help="of torch; 0 lets it choose")
    p.add_argument("--jobs", type=int, default=1, help="processes that decode videos")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--json", metavar="FILE", help="also write what was done to FILE")


def run(args: argparse.Namespace) -> int:
    """Train; 2 on wrong usage, 1 when dataset or checkpoint are no good."""
    import torch

    if args.threads:
        torch.set_num_threads(args.threads)
    if args.check:
        return _check(args)
    if args.dataset is None or args.out is None:
        print("wam train: name a dataset and --out FOLDER, or --check 14b")
        return 2
    if args.lora and args.base is None:
        print("wam train: --lora changes a checkpoint; name it with --from")
        return 2
    from wam_ros.training.gear import GearDataset, GearError
    from wam_ros.wam.checkpoint.errors import CheckpointError

    settings = _settings(args)
    try:
        dataset = GearDataset.open(args.dataset)
        folder = (
            _finetune(args, dataset, settings) if args.base else _small(args, dataset, settings)
        )
    except (GearError, CheckpointError, FileNotFoundError, ValueError, FloatingPointError) as err:
        print(f"wam train: {err}")
        return 1
    except KeyboardInterrupt:
        print(f"\nstopped; the same command goes on from {args.out / 'stages'}")
        return 130
    print(f"checkpoint: {folder}")
    if int(os.environ.get("RANK", "0")) == 0:
        from wam_ros.training import curves

        if curves.draw(folder / "stages", folder / "curves.png"):
            print(f"curves: {folder / 'curves.png'}")
    if args.json and (folder / "training.json").is_file():
        from wam_ros.jsonfile import write_json

        write_json(args.json, json.loads((folder / "training.json").read_text()))
    return 0


def _settings(args: argparse.Namespace) -> Any:
    from wam_ros.training.recipe import Settings

    return Settings(
        seed=args.seed, jobs=args.jobs, bf16=args.bf16, device=args.device, **_given(args)
    )


def _given(args: argparse.Namespace) -> dict[str, Any]:
    """What was asked for by name and has another default for every kind of training."""
    given = {
        "dit_minutes": args.minutes,
        "vae_minutes": args.vae_minutes,
        "encoder_minutes": args.encoder_minutes,
        "max_steps": args.steps,
        "dit_rate": args.rate,
        "batch": args.batch,
        "schedule": args.schedule,
        "video_weight": 0.0 if args.action_only else None,
    }
    return {k: v for k, v in given.items() if v is not None}


def _small(args: argparse.Namespace, dataset: Any, settings: Any) -> Path:
    from wam_ros.training.recipe import SmallRecipe

    return SmallRecipe(dataset, args.out, settings, print).run()


def _finetune(args: argparse.Namespace, dataset: Any, settings: Any) -> Path:
    import torch

    from wam_ros.training.finetune import finetune, suited
    from wam_ros.training.ranks import join
    from wam_ros.wam.checkpoint.load import load
    from wam_ros.wam.text import Tokenizer

    ranks = join()
    try:
        device = ranks.device if ranks else settings.place
        # Adapters are float32 of their own, and several processes keep float32 shares; whatever
        # else is trained in bfloat16 loses most steps to rounding.
        kept = device.type == "cuda" and (args.lora or ranks is not None)
        dtype = torch.bfloat16 if kept else torch.float32
        loaded = load(args.base, device=str(device), dtype=dtype)
        settings = suited(settings, loaded.config, args.base, _given(args))
        try:
            folder = args.tokenizer or Tokenizer.beside(args.base)
        except FileNotFoundError as err:
            raise FileNotFoundError(f"{err}, with --tokenizer FOLDER") from err
        tokenizer = Tokenizer(folder, loaded.config.dit.text_len)
        return finetune(
            loaded, args.base, tokenizer, dataset, args.out, settings, print, args.lora, None, ranks
        )
    finally:
        if ranks is not None:
            ranks.leave()


def _check(args: argparse.Namespace) -> int:
    from wam_ros.training.shapes import check_shapes
    from wam_ros.wam.presets import preset

    report = check_shapes(preset(args.check), args.lora)
    print("\n".join(report.lines()))
    if args.json:
        from wam_ros.jsonfile import write_json

        write_json(args.json, dataclasses.asdict(report))
    return 0
