"""The data set's metadata, made anew from the recorded input and compared file by file."""

from __future__ import annotations

import importlib.util
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wam_ros.wam.parity.golden import need, read_json
from wam_ros.wam.parity.result import Result, Unavailable

# Sums of a few thousand float64; only their order could differ.
DOUBLES = 1e-12
_STATISTICS = ("max", "min", "mean", "std", "q01", "q99")


def case_gear_dataset(golden: Path) -> Iterator[Result]:
    """Files the released converter writes, and what the trainer makes of them."""
    arguments = read_json(golden, "gear_dataset/arguments.json")
    folder = golden / "gear_dataset"
    if importlib.util.find_spec("pyarrow") is None:
        raise Unavailable("needs pyarrow: pip install 'wam_ros[record]'")
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "set"
        shutil.copytree(folder / "input", root)
        _convert(root, arguments)
        for path in sorted((folder / "expected_meta").iterdir()):
            ours, expected = (_load(p) for p in (root / "meta" / path.name, path))
            yield _compare(f"gear_dataset/{path.name}", ours, expected)
        need(folder, "expected_trainer_metadata.json")
        for tag, entry in read_json(folder, "expected_trainer_metadata.json").items():
            ours = _trainer(root, tag)
            for part, expected in entry.items():
                yield _compare(f"gear_dataset/{tag} {part}", ours.get(part), expected)


def _convert(root: Path, arguments: dict[str, Any]) -> None:
    from wam_ros.recording.gear import write_gear_metadata

    task = str(arguments.get("task_key") or "(auto)")
    named = {} if "(auto)" in task else {task.removeprefix("annotation."): task}
    write_gear_metadata(
        root,
        arguments["embodiment_tag"],
        {k: tuple(v) for k, v in arguments["state_keys"].items()},
        {k: tuple(v) for k, v in arguments["action_keys"].items()},
        arguments["relative_action_keys"],
        horizon=arguments["action_horizon"],
        annotations=named,
    )


def _trainer(root: Path, tag: str) -> dict[str, Any]:
    """What a trainer stores per embodiment: slices of the statistics, and the pictures' sizes."""
    meta = {p.name: json.loads(p.read_text()) for p in (root / "meta").glob("*.json")}
    modality, stats = meta["modality.json"], meta["stats.json"]
    if meta["embodiment.json"]["embodiment_tag"] != tag:
        return {}
    statistics: dict[str, Any] = {
        kind: {
            key: {n: stats[m["original_key"]][n][m["start"] : m["end"]] for n in _STATISTICS}
            for key, m in modality[kind].items()
        }
        for kind in ("state", "action")
    }
    statistics["action"].update(meta["relative_stats_dreamzero.json"])
    features = meta["info.json"]["features"]
    modalities: dict[str, Any] = {"video": {}}
    for short, m in modality["video"].items():
        height, width, channels = features[m["original_key"]]["shape"]
        fps = features[m["original_key"]]["video_info"]["video.fps"]
        modalities["video"][short] = {
            "resolution": [width, height], "channels": channels, "fps": fps,
        }  # fmt: skip
    for kind in ("state", "action"):
        modalities[kind] = {
            key: {
                "absolute": m["absolute"],
                "rotation_type": m["rotation_type"],
                "shape": [m["end"] - m["start"]],
                "continuous": m["dtype"].startswith("float"),
            }
            for key, m in modality[kind].items()
        }
    return {"statistics": statistics, "modalities": modalities, "embodiment_tag": tag}


def _load(path: Path) -> Any:
    if not path.is_file():
        return None
    text = path.read_text(encoding="utf-8")
    lines = path.suffix == ".jsonl"
    return [json.loads(x) for x in text.splitlines() if x] if lines else json.loads(text)


def _compare(name: str, ours: Any, expected: Any) -> Result:
    found = list(_differences(ours, expected, ""))
    worst = max(found, default=(0.0, ""))
    return Result(name, worst[0], DOUBLES, worst[0] <= DOUBLES, worst[1] or "exact")


def _differences(ours: Any, expected: Any, where: str) -> Iterator[tuple[float, str]]:
    """Relative differences of numbers; infinite where keys, order, lengths or texts differ."""
    if isinstance(expected, dict):
        if not isinstance(ours, dict) or list(ours) != list(expected):
            yield float("inf"), f"{where}: {ours!r:.60}, expected {expected!r:.60}"
            return
        for key in expected:
            yield from _differences(ours[key], expected[key], f"{where}.{key}")
    elif isinstance(expected, list) and isinstance(ours, list) and len(ours) == len(expected):
        for i, (a, b) in enumerate(zip(ours, expected)):
            yield from _differences(a, b, f"{where}[{i}]")
    elif isinstance(expected, float) and isinstance(ours, (int, float)):
        error = abs(ours - expected) / max(abs(expected), 1e-3)
        if error:
            yield error, where
    elif ours != expected:
        yield float("inf"), f"{where}: {ours!r:.60}, expected {expected!r:.60}"
