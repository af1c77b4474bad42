"""Reading a GEAR dataset, as `wam dataset` writes it (SPEC section 7)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from wam_ros.training.episodes import Array, Episode, Numbers
from wam_ros.wam.checkpoint.experiment import EmbodimentSetup, Experiment
from wam_ros.wam.checkpoint.metadata import EmbodimentMetadata, VectorInfo, VideoInfo
from wam_ros.wam.embodiments import embodiment
from wam_ros.wam.normalize import Statistics
from wam_ros.workers import worker_pool

Progress = Callable[[int, int], None]


class GearError(ValueError):
    """A dataset that cannot be trained on; names file and entry."""


@dataclass(frozen=True)
class GearDataset:
    """What the files under ``meta`` say.

    Attributes
    ----------
    tag
        Embodiment.
    fps
        Rows per second.
    length
        Rows per episode, by episode number.
    excluded
        Rows of an episode that may not be anchors (``meta/step_filter.jsonl``).
    """

    folder: Path
    tag: str
    fps: float
    info: Mapping[str, Any]
    modality: Mapping[str, Any]
    length: Mapping[int, int]
    tasks: Mapping[int, str]
    metadata: EmbodimentMetadata
    excluded: Mapping[int, frozenset[int]] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: Path | str) -> GearDataset:
        """Read ``meta``; raises GearError when a file is missing or does not fit the others."""
        folder = Path(folder)
        meta = folder / "meta"
        info, modality = _json(meta / "info.json"), _json(meta / "modality.json")
        tag = _json(meta / "embodiment.json").get("embodiment_tag")
        if not tag:
            raise GearError(f"{meta / 'embodiment.json'} names no embodiment_tag")
        try:
            length = {e["episode_index"]: e["length"] for e in _lines(meta / "episodes.jsonl")}
            tasks = {t["task_index"]: t["task"] for t in _lines(meta / "tasks.jsonl")}
            metadata = _metadata(str(tag), meta, info, modality)
            filtered = meta / "step_filter.jsonl"
            excluded = {
                e["episode_index"]: frozenset(e["step_indices"])
                for e in (_lines(filtered) if filtered.is_file() else ())
            }
            fps = float(info["fps"])
            found = cls(folder, str(tag), fps, info, modality, length, tasks, metadata, excluded)
        except KeyError as err:
            raise GearError(f"{meta}: entry {err} is missing") from err
        if not length:
            raise GearError(f"{meta / 'episodes.jsonl'} lists no episode")
        return found

    def fingerprint(self) -> str:
        """Short name of what is in the files; the same for a copy in another folder."""
        known = hashlib.blake2b(digest_size=8)
        for name in ("info", "modality", "embodiment", "stats", "relative_stats_dreamzero"):
            known.update((self.folder / "meta" / f"{name}.json").read_bytes())
        for name in ("episodes", "tasks", "step_filter"):
            file = self.folder / "meta" / f"{name}.jsonl"
            known.update(file.read_bytes() if file.is_file() else b"-")
        for file in sorted(self.folder.rglob("*.parquet")):
            known.update(file.read_bytes())
        for file in sorted(self.folder.rglob("*.mp4")):
            known.update(f"{file.relative_to(self.folder)} {file.stat().st_size}".encode())
        return known.hexdigest()

    @property
    def cameras(self) -> tuple[str, ...]:
        """Views in the model's order."""
        known = embodiment(self.tag).cameras
        missing = [k for k in known if k not in self.modality["video"]]
        if missing:
            raise GearError(
                f"{self.folder}/meta/modality.json: no video '{missing[0]}', which {self.tag} has"
            )
        return known

    def keys(self, kind: str) -> tuple[str, ...]:
        """State or action keys in the model's order, those the dataset has."""
        order = [k for k, _ in getattr(embodiment(self.tag), kind)]
        have = self.modality[kind]
        return (*(k for k in order if k in have), *(k for k in have if k not in order))

    @property
    def relative(self) -> tuple[str, ...]:
        """Action keys that train relative to the state."""
        known = embodiment(self.tag).relative
        return tuple(k for k in self.keys("action") if k in known)

    def numbers(self, state_width: int, action_width: int) -> Numbers:
        """How its states and actions become a model's."""
        return Numbers(
            self.metadata,
            self.keys("state"),
            self.keys("action"),
            self.relative,
            state_width,
            action_width,
        )

    def experiment(self) -> Experiment:
        """What a checkpoint trained on it says in ``experiment_cfg/conf.yaml``."""
        modes = {kind: dict.fromkeys(self.keys(kind), "q99") for kind in ("state", "action")}
        setup = EmbodimentSetup(
            self.cameras, self.keys("state"), self.keys("action"), modes, self.fps
        )
        return Experiment({self.tag: setup}, True, self.relative, False)

    # ------------------------------------------------------------------ episodes

    def load(
        self,
        size: tuple[int, int],
        cache: Path,
        stride: int = 3,
        jobs: int = 1,
        progress: Progress | None = None,
    ) -> list[Episode]:
        """All episodes, with composites of ``size`` (height, width) every ``stride`` rows.

        The pictures are decoded once and kept in ``cache``; what is there from an earlier run is
        used again.
        """
        cache.mkdir(parents=True, exist_ok=True)
        name = f"{size[0]}x{size[1]}_{stride}"
        files = {n: cache / f"{name}_{n:06d}.npy" for n in sorted(self.length)}
        todo = [n for n, f in files.items() if not f.is_file()]
        work = [(n, size, stride, files[n]) for n in todo]
        if jobs > 1 and len(work) > 1:
            with worker_pool(jobs, _hold, (self,)) as pool:
                for i, done in enumerate([pool.submit(_compose, *w) for w in work], start=1):
                    done.result()
                    if progress:
                        progress(i, len(work))
        else:
            for i, item in enumerate(work, start=1):
                self._compose_to(*item)
                if progress:
                    progress(i, len(work))
        return [self._episode(n, files[n], stride) for n in files]

    def _compose_to(self, number: int, size: tuple[int, int], stride: int, file: Path) -> None:
        part = file.with_suffix(".part.npy")
        np.save(part, self.compose(number, size, stride))
        part.replace(file)

    def _episode(self, number: int, frames: Path, stride: int) -> Episode:
        import pyarrow.parquet as pq

        path = self._path("data_path", number)
        try:
            table = pq.read_table(path)
        except (OSError, ValueError) as err:  # pyarrow's own errors are one or the other
            raise GearError(f"{path} cannot be read: {err}") from err
        if len(table) != self.length[number]:
            raise GearError(
                f"{path} has {len(table)} rows, episodes.jsonl says {self.length[number]}"
            )
        language = self._language()
        try:
            said = table[language].to_pylist()
            text = tuple(x if isinstance(x, str) else self.tasks[x] for x in said)
            state, action = (self._vector(table, kind) for kind in ("state", "action"))
        except KeyError as err:
            raise GearError(
                f"{path}: {err} is missing, as a column or as an entry of tasks.jsonl"
            ) from err
        for kind, values in (("state", state), ("action", action)):
            bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
            if len(bad):
                raise GearError(f"{path}: {kind} of row {bad[0]} is not a number")
        pictures = np.load(frames, mmap_mode="r")
        excluded = self.excluded.get(number, frozenset())
        return Episode(pictures, state, action, text, stride, excluded)

    def _language(self) -> str:
        for entry in self.modality.get("annotation", {}).values():
            if "original_key" in entry:
                return str(entry["original_key"])
        raise GearError(
            f"{self.folder}/meta/modality.json: no annotation names the column with the instruction"
        )

    def _vector(self, table: Any, kind: str) -> Array:
        parts = []
        for key in self.keys(kind):
            entry = self.modality[kind][key]
            column = entry.get("original_key") or ("observation.state", "action")[kind == "action"]
            values = np.stack(table[column].to_numpy())
            parts.append(values[:, entry["start"] : entry["end"]])
        return np.concatenate(parts, axis=1).astype(np.float64)

    def _path(self, template: str, number: int, **more: str) -> Path:
        chunk = number // int(self.info.get("chunks_size", 1000))
        name = self.info[template].format(episode_chunk=chunk, episode_index=number, **more)
        return self.folder / str(name)

    def compose(self, number: int, size: tuple[int, int], stride: int) -> Array:
        """Composites uint8 [N, height, width, 3] of every ``stride``-th row of an episode."""
        import torch

        from wam_ros.recording.video import read_frames
        from wam_ros.wam.views import composite

        views = {}
        for short in self.cameras:
            key = self.modality["video"][short].get("original_key") or f"observation.images.{short}"
            path = self._path("video_path", number, video_key=key)
            try:
                times, frames = read_frames(path, stride)
            except ValueError as err:  # PyAV's errors about broken files
                raise GearError(f"{path} cannot be read: {err}") from err
            if len(times) < self.length[number]:
                raise GearError(f"{path} has {len(times)} frames for {self.length[number]} rows")
            wanted = -(-self.length[number] // stride)
            views[short] = torch.from_numpy(np.stack(frames[:wanted]))
        whole = composite(views, self.tag, size, self.metadata.resolution, self.cameras)
        return whole.numpy()


_held: GearDataset | None = None
"""Of a process that composes: a data set knows every row that is left out, much to send along."""


def _hold(dataset: GearDataset) -> None:
    global _held
    _held = dataset


def _compose(number: int, size: tuple[int, int], stride: int, file: Path) -> None:
    assert _held is not None
    _held._compose_to(number, size, stride, file)


def _metadata(
    tag: str, meta: Path, info: Mapping[str, Any], modality: Mapping[str, Any]
) -> EmbodimentMetadata:
    stats, relative = _json(meta / "stats.json"), _json(meta / "relative_stats_dreamzero.json")
    found: dict[str, dict[str, Statistics]] = {"state": {}, "action": {}}
    shapes: dict[str, dict[str, VectorInfo]] = {"state": {}, "action": {}}
    for kind, default in (("state", "observation.state"), ("action", "action")):
        for key, entry in modality[kind].items():
            start, end = int(entry["start"]), int(entry["end"])
            if kind == "action" and key in relative:
                values = relative[key]
            else:
                column = stats[entry.get("original_key") or default]
                values = {n: v[start:end] for n, v in column.items()}
            where = f"{meta}: {kind} '{key}'"
            try:
                found[kind][key] = Statistics.from_json(values, where)
            except ValueError as err:
                raise GearError(str(err)) from err
            if not all(np.isfinite(v).all() for v in values.values()):
                raise GearError(f"{where}: a statistic is not a number")
            shapes[kind][key] = VectorInfo(
                bool(entry.get("absolute", True)), entry.get("rotation_type"), (end - start,), True
            )
    video = {}
    for short, entry in modality["video"].items():
        feature = info["features"][entry.get("original_key") or f"observation.images.{short}"]
        height, width, channels = feature["shape"]
        video[short] = VideoInfo(int(width), int(height), int(channels), float(info["fps"]))
    return EmbodimentMetadata(
        tag, found["state"], found["action"], video, shapes["state"], shapes["action"]
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise GearError(f"{path} not found; is this a folder that `wam dataset` wrote?") from None
    except ValueError as err:
        raise GearError(f"{path}: not valid JSON ({err})") from err


def _lines(path: Path) -> list[dict[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines if line.strip()]
    except FileNotFoundError:
        raise GearError(f"{path} not found") from None
    except ValueError as err:
        raise GearError(f"{path}: not valid JSON lines ({err})") from err
