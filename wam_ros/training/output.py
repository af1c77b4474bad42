"""The folder that a training run fills: its own weights it may replace, nobody else's."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from wam_ros.jsonfile import write_json
from wam_ros.training.gear import GearDataset, GearError

_WEIGHTS = "model*.safetensors*"
_MADE_FROM = "made_from.json"
"""In ``stages``: to go on with other data or settings would mix the two, and tell neither."""


def stages_of(out: Path) -> Path:
    """Folder in ``out`` with what a stopped run goes on with.

    Raises
    ------
    GearError
        ``out`` holds weights that no training run of ours wrote, and writing the new ones would
        destroy them.
    """
    stages = out / "stages"
    if any(out.glob(_WEIGHTS)) and not stages.is_dir():
        raise GearError(f"{out} holds weights that were not trained here: choose another --out")
    return stages


def claim(stages: Path, dataset: str, settings: Mapping[str, Any]) -> None:
    """Note what a training is made from; see `_MADE_FROM`.

    Parameters
    ----------
    stages
        Folder of its stages.
    dataset
        Fingerprint of the data set.
    settings
        What decides the outcome; how long it may take does not belong there.

    Raises
    ------
    GearError
        The stages there were made from other data or with other settings; names them.
    """
    mine = json.loads(json.dumps({"dataset": dataset, **settings}))
    file = stages / _MADE_FROM
    if file.is_file():
        theirs = json.loads(file.read_text(encoding="utf-8"))
        differ = [k for k in mine if k in theirs and theirs[k] != mine[k]]
        if differ:
            said = ", ".join(f"{k} {theirs[k]} there, {mine[k]} now" for k in differ)
            raise GearError(f"{stages} was begun with another {said}: choose another --out")
    stages.mkdir(parents=True, exist_ok=True)
    write_json(file, mine)


def write_facts(
    out: Path,
    dataset: GearDataset,
    settings: Mapping[str, Any],
    seconds: Mapping[str, float],
    steps: Mapping[str, int],
) -> None:
    """Write ``training.json``: what a checkpoint was trained on, with what, and for how long."""
    facts = {
        "settings": settings,
        "dataset": {
            "episodes": len(dataset.length),
            "rows": sum(dataset.length.values()),
            "tasks": len(dataset.tasks),
        },
        "seconds": seconds,
        "steps": steps,
        "machine": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    write_json(out / "training.json", facts)


def make_room(out: Path) -> None:
    """Remove the weights of a run that went on; see `stages_of`."""
    stages_of(out)
    for old in out.glob(_WEIGHTS):
        old.unlink()
