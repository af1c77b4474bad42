"""The files that turn a LeRobot v2 data set into one that DreamZero's trainer reads.

Everything is computed from what the data set holds, so it serves converted bags and any other
LeRobot v2 data set alike. Field by field it follows what the released converter writes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from wam_ros.contract.data import FloatArray
from wam_ros.recording.statistics import describe, relative

Slices = Mapping[str, tuple[int, int]]


class DatasetError(ValueError):
    """A data set that cannot be described; names the file and what is missing."""


def write_gear_metadata(
    root: Path,
    embodiment: str,
    state: Slices,
    action: Slices,
    relative_keys: Sequence[str],
    horizon: int = 24,
    annotations: Mapping[str, str] | None = None,
    tasks: Sequence[str] | None = None,
) -> None:
    """Write modality, embodiment, stats, relative stats, tasks and episodes under ``root/meta``.

    Parameters
    ----------
    root
        LeRobot v2 data set: ``meta/info.json`` and ``data/``.
    embodiment
        DreamZero's tag, for example ``yam``.
    state, action
        Sub-key -> ``(start, end)`` of the vector, in the model's order.
    relative_keys
        Sub-keys trained relative to the state.
    horizon
        Rows of a training window.
    annotations
        Short name -> column; by default every feature ``annotation.*``.
    tasks
        Text per task number; by default what the language column holds, in order of appearance.

    Raises
    ------
    DatasetError
        A feature or column is missing, or a slice leaves its vector.
    """
    info = _info(root)
    features = info["features"]
    columns = [_first(features, "observation.state"), _first(features, "action")]
    named = dict(annotations or {})
    if not named:
        named = {f.removeprefix("annotation."): f for f in features if f.startswith("annotation.")}
    meta = root / "meta"
    modality = _modality(features, columns, state, action, named)
    _dump(meta / "modality.json", modality)
    _dump(meta / "embodiment.json", {"robot_type": embodiment, "embodiment_tag": embodiment})
    files = sorted(root.glob("data/*/*.parquet"))
    if not files:
        raise DatasetError(f"{root}/data holds no .parquet files")
    wanted = [*columns, *(c for c in ("timestamp",) if c in features)]
    tables = [_columns(f, [*wanted, "episode_index", *list(named.values())[:1]]) for f in files]
    _dump(
        meta / "stats.json",
        {c: describe(np.concatenate([_matrix(t[c]) for t in tables])) for c in wanted},
    )
    pairs = [(_matrix(t[columns[0]]), _matrix(t[columns[1]])) for t in tables]
    stats = relative(pairs, relative_keys, state, action, horizon)
    _dump(meta / "relative_stats_dreamzero.json", stats)
    language = next(iter(named.values()), "")
    texts = [_texts(t.get(language, [""] * len(t[columns[0]])), tasks) for t in tables]
    known = list(tasks) if tasks is not None else list(dict.fromkeys(x for t in texts for x in t))
    _lines(meta / "tasks.jsonl", [{"task_index": i, "task": t} for i, t in enumerate(known)])
    _lines(
        meta / "episodes.jsonl",
        [
            {
                "episode_index": int(t["episode_index"][0]),
                "tasks": list(dict.fromkeys(x)),
                "length": len(x),
            }
            for t, x in zip(tables, texts, strict=True)
        ],
    )


def _info(root: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((root / "meta" / "info.json").read_text(encoding="utf-8")))
    except (OSError, ValueError) as err:
        raise DatasetError(f"{root}/meta/info.json cannot be read: {err}") from err


def _first(features: Mapping[str, Any], prefix: str) -> str:
    for name in features:
        if name == prefix or name.startswith(f"{prefix}."):
            return name
    raise DatasetError(f"info.json has no feature '{prefix}'")


def _modality(
    features: Mapping[str, Any],
    columns: list[str],
    state: Slices,
    action: Slices,
    annotations: Mapping[str, str],
) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for kind, column, slices in zip(("state", "action"), columns, (state, action), strict=True):
        width = int(features[column]["shape"][0])
        for key, (start, end) in slices.items():
            if not 0 <= start < end <= width:
                raise DatasetError(
                    f"{kind} key '{key}' [{start}:{end}] leaves {column} [0:{width}]"
                )
        out[kind] = {
            key: {
                "original_key": column,
                "start": start,
                "end": end,
                "rotation_type": None,
                "absolute": True,
                "dtype": features[column]["dtype"],
                "range": None,
            }
            for key, (start, end) in slices.items()
        }
    videos = [f for f, spec in features.items() if spec.get("dtype") == "video"]
    out["video"] = {v.removeprefix("observation.images."): {"original_key": v} for v in videos}
    out["annotation"] = {k: {"original_key": c} for k, c in annotations.items()}
    return out


def _columns(path: Path, wanted: Sequence[str]) -> dict[str, list[Any]]:
    table = pq.read_table(path)
    missing = [c for c in wanted if c not in table.column_names]
    if missing:
        raise DatasetError(f"{path}: no column {', '.join(missing)}")
    return {c: table.column(c).to_pylist() for c in wanted}


def _matrix(column: list[Any]) -> FloatArray:
    values = np.asarray(column, dtype=np.float64)
    return values[:, None] if values.ndim == 1 else values


def _texts(column: list[Any], tasks: Sequence[str] | None) -> list[str]:
    """Instruction per row; numbers are looked up in ``tasks``."""
    if column and not isinstance(column[0], str):
        if tasks is None:
            raise DatasetError(
                "the language column holds numbers and there is no tasks.jsonl to look them up in; "
                "pass the tasks"
            )
        return [tasks[int(i)] for i in column]
    return [str(x) for x in column]


def _dump(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=4), encoding="utf-8")


def _lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")
