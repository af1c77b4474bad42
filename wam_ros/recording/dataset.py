"""A folder of bags to one LeRobot v2 data set with GEAR metadata."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import as_completed
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from wam_ros.contract import Contract
from wam_ros.recording import layout as names
from wam_ros.recording.convert import Options, convert_bag, key_of
from wam_ros.recording.episode import Episode
from wam_ros.recording.gear import DatasetError, write_gear_metadata
from wam_ros.recording.layout import Layout, annotation_key, language_columns, layout_of, video_key
from wam_ros.recording.video import CODEC, PIXELS
from wam_ros.workers import worker_pool

CACHE = ".episodes"
"""Converted episodes; a second run takes from here what has not changed."""
_CHUNK = 1000
_CHUNK_DIR = "chunk-{:03d}"


def convert_all(
    bags: Sequence[Path],
    out: Path,
    options: Options,
    jobs: int = 2,
    progress: Callable[[int, int, dict[str, Any]], None] = lambda *_: None,
) -> list[dict[str, Any]]:
    """Convert every bag, ``jobs`` at a time; summaries come back in the order of ``bags``.

    What an earlier run finished is not converted again. ``progress`` gets done, total, summary.
    """
    cache = out / CACHE
    cache.mkdir(parents=True, exist_ok=True)
    targets = [cache / key_of(b, options) for b in bags]
    results: dict[int, dict[str, Any]] = {}
    jobs = max(1, min(jobs, len(bags)))
    if jobs == 1:
        for i, (bag, target) in enumerate(zip(bags, targets, strict=True)):
            results[i] = {**convert_bag(bag, target, options), "folder": str(targets[i])}
            progress(i + 1, len(bags), results[i])
    else:
        with worker_pool(jobs) as pool:
            waiting = {
                pool.submit(convert_bag, bag, target, options): i
                for i, (bag, target) in enumerate(zip(bags, targets, strict=True))
            }
            for done, future in enumerate(as_completed(waiting), 1):
                i = waiting[future]
                results[i] = {**future.result(), "folder": str(targets[i])}
                progress(done, len(bags), results[i])
    for stale in {p for p in cache.iterdir() if p.is_dir()} - set(targets):
        shutil.rmtree(stale)
    return [results[i] for i in range(len(bags))]


def check_target(out: Path) -> None:
    """Refuse a folder that holds something else.

    Raises
    ------
    DatasetError
        ``out`` is not empty and no earlier run of ours made it.
    """
    if out.exists() and any(out.iterdir()) and not (out / CACHE).is_dir():
        raise DatasetError(f"{out} is not empty and not a data set of wam_ros; choose another")


def assemble(
    summaries: Sequence[dict[str, Any]], out: Path, version: str = "v2.1"
) -> dict[str, Any]:
    """Number the accepted episodes and write ``data``, ``videos`` and ``meta``.

    Returns what was written: episodes, frames, tasks.

    Raises
    ------
    DatasetError
        No episode was accepted, or they come from robots of different layout.
    """
    accepted = [s for s in summaries if not s["refused"]]
    if not accepted:
        raise DatasetError("no episode was accepted; the reasons stand above and in report.html")
    layout, contract = _common(accepted)
    for name in ("data", "videos", "meta"):
        shutil.rmtree(out / name, ignore_errors=True)
    (out / "meta").mkdir(parents=True)
    tasks = list(dict.fromkeys([*layout.first_tasks, *(t for s in accepted for t in s["tasks"])]))
    start = 0
    stats: list[dict[str, Any]] = []
    for number, summary in enumerate(accepted):
        summary["episode_index"] = number
        table = _episode_table(Path(summary["folder"]), layout, tasks, number, start)
        start += table.num_rows
        _place(table, summary, layout, out, number)
        stats.append(_episode_stats(table, summary, layout, number))
    info = _info(layout, accepted, start, len(tasks), version)
    _json(out / "meta" / "info.json", info)
    write_gear_metadata(
        out,
        layout.embodiment,
        layout.state,
        layout.action,
        layout.relative,
        horizon=layout.horizon,
        annotations={short: annotation_key(short) for short, _ in layout.language},
        tasks=tasks,
    )
    if version == "v2.1":
        _lines(out / "meta" / "episodes_stats.jsonl", stats)
    excluded = [
        {"episode_index": s["episode_index"], "step_indices": s["excluded"]}
        for s in accepted
        if s["excluded"]
    ]
    if excluded:
        _lines(out / "meta" / "step_filter.jsonl", excluded)
    (out / "meta" / "contract.yaml").write_text(accepted[0]["contract"], encoding="utf-8")
    return {
        "episodes": len(accepted),
        "refused": len(summaries) - len(accepted),
        "frames": start,
        "tasks": len(tasks),
        "robot": contract.robot,
    }


def _common(accepted: Sequence[dict[str, Any]]) -> tuple[Layout, Contract]:
    contracts = [Episode(s["robot"], s["contract"]).contract() for s in accepted]
    layouts = [layout_of(c) for c in contracts]
    for summary, layout in zip(accepted, layouts, strict=True):
        if layout != layouts[0]:
            raise DatasetError(
                f"{summary['bag']} ({summary['robot']}) and {accepted[0]['bag']} "
                f"({accepted[0]['robot']}) have different vectors, cameras or rates; make one data "
                "set per robot"
            )
    sizes = {tuple(s["size"]): s["bag"] for s in accepted}
    if len(sizes) > 1:
        said = ", ".join(f"{w}x{h} in {bag}" for (w, h), bag in sizes.items())
        raise DatasetError(f"pictures have different sizes ({said}); give one with --size")
    return layouts[0], contracts[0]


def _episode_table(
    folder: Path, layout: Layout, tasks: list[str], number: int, start: int
) -> pa.Table:
    rows = pq.read_table(folder / "rows.parquet")
    n = rows.num_rows
    texts = rows.column("language").to_pylist()
    index = {t: i for i, t in enumerate(tasks)}
    origin = ["human" if h else "policy" for h in rows.column("human").to_pylist()]
    columns: dict[str, Any] = {
        names.STATE: rows.column("state"),
        names.ACTION: rows.column("action"),
        # LeRobot keeps time in float32; frame numbers divided by the rate, as decoders look it up
        "timestamp": pa.array((np.arange(n) / layout.fps).astype(np.float32)),
        "frame_index": pa.array(np.arange(n), pa.int64()),
        "episode_index": pa.array(np.full(n, number), pa.int64()),
        "index": pa.array(np.arange(start, start + n), pa.int64()),
        "task_index": pa.array([index[t] for t in texts], pa.int64()),
    }
    for name, values in language_columns(layout, texts, tasks).items():
        columns[name] = pa.array(values)
    columns[names.ORIGIN] = pa.array(origin)
    return pa.table(columns)


def _place(
    table: pa.Table, summary: dict[str, Any], layout: Layout, out: Path, number: int
) -> None:
    chunk, name = _CHUNK_DIR.format(number // _CHUNK), f"episode_{number:06d}"
    data = out / "data" / chunk / f"{name}.parquet"
    data.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, data)
    for camera, short in layout.cameras.items():
        video = out / "videos" / chunk / video_key(short) / f"{name}.mp4"
        video.parent.mkdir(parents=True, exist_ok=True)
        source = Path(summary["folder"]) / f"{camera}.mp4"
        try:
            os.link(source, video)
        except OSError:  # a file system without hard links
            shutil.copyfile(source, video)


def _info(
    layout: Layout, accepted: Sequence[dict[str, Any]], frames: int, tasks: int, version: str
) -> dict[str, Any]:
    width, height = accepted[0]["size"]
    fps = int(layout.fps) if float(layout.fps).is_integer() else layout.fps
    video = {
        "video.fps": float(fps),
        "video.codec": CODEC,
        "video.pix_fmt": PIXELS,
        "video.is_depth_map": False,
        "has_audio": False,
    }
    newer = {"video.height": height, "video.width": width, "video.channels": 3}
    features: dict[str, Any] = {
        video_key(short): {
            "dtype": "video",
            "shape": [height, width, 3],
            "names": ["height", "width", "channel"],
            "video_info": video,
            "info": {**newer, **video},
        }
        for short in layout.cameras.values()
    }
    state, action = layout.state_names, layout.action_names
    features[names.STATE] = {"dtype": "float32", "shape": [len(state)], "names": list(state)}
    features[names.ACTION] = {"dtype": "float32", "shape": [len(action)], "names": list(action)}
    one = {"shape": [1], "names": None}
    features["timestamp"] = {"dtype": "float32", **one}
    for name in ("frame_index", "episode_index", "index", "task_index"):
        features[name] = {"dtype": "int64", **one}
    for short, kind in layout.language:
        features[annotation_key(short)] = {"dtype": "string" if kind == "text" else "int64", **one}
    features[names.ORIGIN] = {"dtype": "string", **one}
    count = len(accepted)
    return {
        "codebase_version": version,
        "robot_type": layout.robot,
        "total_episodes": count,
        "total_frames": frames,
        "total_tasks": tasks,
        "total_videos": count * len(layout.cameras),
        "total_chunks": (count - 1) // _CHUNK + 1,
        "chunks_size": _CHUNK,
        "fps": fps,
        "splits": {"train": f"0:{count}"},
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": (
            "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
        ),
        "features": features,
    }


def _episode_stats(
    table: pa.Table, summary: dict[str, Any], layout: Layout, number: int
) -> dict[str, Any]:
    """LeRobot v2.1's per-episode statistics; pictures from the sampled frames of the report."""
    stats: dict[str, Any] = {}
    for name in table.column_names:
        column = table.column(name)
        if pa.types.is_string(column.type):
            continue
        values = np.asarray(column.to_pylist(), dtype=np.float64)
        values = values[:, None] if values.ndim == 1 else values
        parts = {"min": values.min(0), "max": values.max(0), "mean": values.mean(0)}
        stats[name] = {
            **{k: v.tolist() for k, v in parts.items()},
            "std": values.std(0).tolist(),
            "count": [len(values)],
        }
    for camera, short in layout.cameras.items():
        stats[video_key(short)] = summary["pixels"][camera]
    return {"episode_index": number, "stats": stats}


def _json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=4), encoding="utf-8")


def _lines(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
