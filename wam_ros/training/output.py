"""The folder that a training run fills: its own weights it may replace, nobody else's."""

from __future__ import annotations

from pathlib import Path

from wam_ros.training.gear import GearError

_WEIGHTS = "model*.safetensors*"


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


def make_room(out: Path) -> None:
    """Remove the weights of a run that went on; see `stages_of`."""
    stages_of(out)
    for old in out.glob(_WEIGHTS):
        old.unlink()
