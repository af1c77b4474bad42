"""``experiment_cfg/metadata.json``: statistics and modalities of every embodiment."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from wam_ros.wam.checkpoint.errors import CheckpointError
from wam_ros.wam.normalize import Statistics


@dataclass(frozen=True)
class VideoInfo:
    """One camera: size in pixels, channels, frames per second of the dataset."""

    width: int
    height: int
    channels: int
    fps: float


@dataclass(frozen=True)
class VectorInfo:
    """One state or action key of the dataset."""

    absolute: bool
    rotation_type: str | None
    shape: tuple[int, ...]
    continuous: bool


@dataclass(frozen=True)
class EmbodimentMetadata:
    """Statistics and modalities of one embodiment, by key.

    For relative action keys the action statistics are those of action minus reference state.
    """

    tag: str
    state_statistics: dict[str, Statistics]
    action_statistics: dict[str, Statistics]
    video: dict[str, VideoInfo]
    state: dict[str, VectorInfo]
    action: dict[str, VectorInfo]

    @property
    def resolution(self) -> tuple[int, int] | None:
        """(width, height) that all cameras share; None where the metadata lists no camera.

        Raises
        ------
        CheckpointError
            If the cameras differ; the model's image chain takes one resolution only.
        """
        sizes = {(v.width, v.height) for v in self.video.values()}
        if len(sizes) > 1:
            raise CheckpointError(
                f"metadata of '{self.tag}': cameras of different resolution {sorted(sizes)}; "
                "the image chain takes one"
            )
        return next(iter(sizes), None)


def read_metadata(path: Path) -> dict[str, EmbodimentMetadata]:
    """Read a ``metadata.json``.

    Raises
    ------
    CheckpointError
        If the file is missing or an entry is malformed; names file, embodiment and key.
    """
    try:
        data = json.loads(path.read_text())
    except FileNotFoundError:
        raise CheckpointError(f"{path}: not found; it holds the statistics of the robot") from None
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(data, Mapping):
        raise CheckpointError(f"{path}: expected an object with one entry per embodiment")
    return {tag: _embodiment(tag, entry, path) for tag, entry in data.items()}


def metadata_to_json(metadata: Mapping[str, EmbodimentMetadata]) -> dict[str, Any]:
    """The inverse of `read_metadata`, JSON-ready."""
    out: dict[str, Any] = {}
    for tag, m in metadata.items():
        out[tag] = {
            "statistics": {
                "state": {k: s.to_json() for k, s in m.state_statistics.items()},
                "action": {k: s.to_json() for k, s in m.action_statistics.items()},
            },
            "modalities": {
                "video": {
                    k: {
                        "resolution": [v.width, v.height],
                        "channels": v.channels,
                        "fps": v.fps,
                    }
                    for k, v in m.video.items()
                },
                "state": {k: _vector_json(v) for k, v in m.state.items()},
                "action": {k: _vector_json(v) for k, v in m.action.items()},
            },
            "embodiment_tag": m.tag,
        }
    return out


def _embodiment(tag: str, entry: Any, path: Path) -> EmbodimentMetadata:
    where = f"{path}: '{tag}'"
    try:
        statistics, modalities = entry["statistics"], entry["modalities"]
        return EmbodimentMetadata(
            tag=str(entry.get("embodiment_tag") or tag),
            state_statistics=_statistics(statistics["state"], f"{where} state"),
            action_statistics=_statistics(statistics["action"], f"{where} action"),
            video={k: _video(v) for k, v in modalities["video"].items()},
            state={k: _vector(v) for k, v in modalities["state"].items()},
            action={k: _vector(v) for k, v in modalities["action"].items()},
        )
    except CheckpointError:
        raise
    except KeyError as error:
        raise CheckpointError(f"{where}: no {error}") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{where}: {error}") from error


def _statistics(data: Mapping[str, Any], where: str) -> dict[str, Statistics]:
    try:
        return {key: Statistics.from_json(value, f"'{key}'") for key, value in data.items()}
    except ValueError as error:
        raise CheckpointError(f"{where} statistics: {error}") from error


def _video(data: Mapping[str, Any]) -> VideoInfo:
    width, height = data["resolution"]
    return VideoInfo(int(width), int(height), int(data["channels"]), data["fps"])


def _vector(data: Mapping[str, Any]) -> VectorInfo:
    return VectorInfo(
        bool(data.get("absolute", True)),
        data.get("rotation_type"),
        tuple(data["shape"]),
        bool(data.get("continuous", True)),
    )


def _vector_json(info: VectorInfo) -> dict[str, Any]:
    return {**asdict(info), "shape": list(info.shape)}
