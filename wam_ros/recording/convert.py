"""One bag to one episode: rows, videos, figures. Runs in a worker process of its own."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from wam_ros.contract import Contract, load_contract
from wam_ros.perception.images import ImageError, decode, fit
from wam_ros.recording import metadata
from wam_ros.recording.quality import measure
from wam_ros.recording.reader import BagError, BagReader
from wam_ros.recording.rows import Rows, RowsError, build_rows
from wam_ros.recording.rules import Limits, Outcome, clock_jumps, judge
from wam_ros.recording.series import Recording, read_recording
from wam_ros.recording.video import VideoWriter

DONE = "episode.json"
VERSION = 2
"""Raise when an episode converted before must be converted again."""
_THUMBNAILS = 6


@dataclass(frozen=True)
class Options:
    """What the person asked for. ``size`` is width and height of the videos; None: the model's.

    ``robot`` names a contract for bags that carry none, or replaces the one they carry.
    """

    only: str = "all"
    task: str = ""
    robot: str = ""
    size: tuple[int, int] | None = None
    limits: Limits = field(default_factory=Limits)


def key_of(bag: Path, options: Options) -> str:
    """Identifies a bag in its present form under these options."""
    files = sorted([*bag.glob("*.mcap"), bag / metadata.FILE]) if bag.is_dir() else [bag]
    parts = [str(VERSION), json.dumps(asdict(options), sort_keys=True), str(bag.resolve())]
    for f in files:
        if f.is_file():
            stat = f.stat()
            parts.append(f"{f.name} {stat.st_size} {stat.st_mtime_ns}")
    if options.robot.endswith((".yaml", ".yml")):
        parts.append(Path(options.robot).read_text(encoding="utf-8"))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def convert_bag(bag: Path, target: Path, options: Options) -> dict[str, Any]:
    """Convert one bag into ``target`` and return its summary, which is also in episode.json.

    A folder that holds episode.json is complete and is not touched again; the summary's
    ``refused`` lists the reasons when the episode does not become data.
    """
    done = target / DONE
    if done.is_file():
        return dict(json.loads(done.read_text(encoding="utf-8")))
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    summary = _convert(bag, target, options)
    draft = target / f".{DONE}"
    draft.write_text(json.dumps(summary), encoding="utf-8")
    draft.rename(done)
    return summary


def _convert(bag: Path, target: Path, options: Options) -> dict[str, Any]:
    summary: dict[str, Any] = {"bag": bag.name, "refused": [], "remarks": [], "excluded": []}
    try:
        reader = BagReader(bag)
        contract, recording = _read(reader, options)
    except (BagError, ValueError) as err:
        summary["refused"] = [str(err)]
        return summary
    episode = reader.episode()
    summary |= {
        "robot": contract.robot,
        "horizon": contract.rates.horizon,
        "instruction": options.task or (episode.instruction if episode else ""),
        "verdict": episode.verdict if episode else "none",
        "note": episode.note if episode else "",
        "started": episode.started if episode else "",
        "simulated": bool(episode and episode.simulated),
        "versions": episode.versions if episode else {},
        "bytes": sum(f.stat().st_size for f in reader.files),
        "contract": _contract_text(reader, contract),
    }
    if summary["verdict"] == "none" and reader.truncated:
        summary["verdict"] = "interrupted"
    summary["refused"] = clock_jumps(recording)
    if summary["verdict"] == "discard":
        summary["refused"].append("discarded by its operator")
    if options.only == "success" and summary["verdict"] != "success":
        summary["refused"].append(f"verdict is '{summary['verdict']}', asked for: success")
    try:
        rows = build_rows(recording, summary["instruction"])
    except RowsError as err:
        summary["refused"].append(str(err))
        summary["figures"] = None
        return summary
    if options.task:
        rows.language = [options.task] * len(rows.t)
    rates = contract.rates
    outcome = judge(
        rows, options.limits, rates.horizon, rates.step_period, options.only == "human",
        reader.truncated,
    )  # fmt: skip
    summary["refused"] += outcome.refused
    summary["remarks"], summary["excluded"] = outcome.remarks, outcome.excluded
    summary["figures"] = measure(contract, recording, rows)
    _pictures(reader, contract, rows, target, options, summary)
    summary["series"] = _plot_data(contract, rows)
    summary["tasks"] = list(dict.fromkeys(rows.language))
    _write_rows(rows, target / "rows.parquet")
    return summary


def _read(reader: BagReader, options: Options) -> tuple[Contract, Recording]:
    """The contract, from the options or from the bag, and the recording it describes."""
    if options.robot:
        contract = load_contract(options.robot)
        return contract, read_recording(reader, contract)
    for _ in reader.messages():  # the episode's record precedes the first message
        break
    episode = reader.episode()
    if episode is None:
        if reader.truncated:
            raise BagError(f"{reader.truncated}; nothing in it can be read")
        raise BagError(
            f"{reader.folder} was not recorded by wam_ros and names no robot: add --robot"
        )
    contract = episode.contract()
    return contract, read_recording(reader, contract)


def _contract_text(reader: BagReader, contract: Contract) -> str:
    episode = reader.episode()
    if episode and Path(contract.path).name == f"{episode.robot}.yaml" and episode.contract_text:
        return episode.contract_text
    return Path(contract.path).read_text(encoding="utf-8")


def _pictures(
    reader: BagReader,
    contract: Contract,
    rows: Rows,
    target: Path,
    options: Options,
    summary: dict[str, Any],
) -> None:
    """Second pass: decode the chosen pictures, in file order, into one video per camera.

    Refused episodes get their thumbnails, for the report, but no video.
    """
    width, height = options.size or (contract.view_width, contract.view_height)
    n = len(rows.t)
    shown = sorted({round(k) for k in np.linspace(0, n - 1, _THUMBNAILS)})
    strips: dict[int, dict[str, Any]] = {k: {} for k in shown}
    wanted = not summary["refused"]
    writers = {
        c.name: VideoWriter(target / f"{c.name}.mp4", width, height, contract.rates.action)
        for c in (contract.cameras if wanted else ())
    }
    cursors = {c.name: 0 for c in contract.cameras}
    seen = {c.name: 0 for c in contract.cameras}
    cameras = {c.topic: c for c in contract.cameras}
    sizes: dict[str, list[int]] = {}
    samples: dict[str, list[Any]] = {c.name: [] for c in contract.cameras}
    decoders: dict[str, Any] = {}
    try:
        for raw in reader.messages():
            camera = cameras.get(raw.topic)
            if camera is None:
                continue
            name = camera.name
            number, at = seen[name], cursors[name]
            seen[name] += 1
            frames = rows.frames[name]
            if at >= n or frames[at] != number:
                continue
            until = at + int(np.searchsorted(frames[at:], number, side="right"))
            cursors[name] = until
            here = [k for k in shown if at <= k < until]
            if not wanted and not here:
                continue
            decoder = decoders.get(raw.topic) or decoders.setdefault(
                raw.topic, reader.decoder(raw.topic)
            )
            picture = decode(decoder(raw.data))
            sizes.setdefault(name, [picture.shape[1], picture.shape[0]])
            fitted = fit(picture, width, height)
            for k in here:
                strips[k][name] = fitted
                samples[name].append(fitted)
            if wanted:
                for _ in range(at, until):
                    writers[name].add(fitted)
    except ImageError as err:
        summary["refused"].append(f"{name}: {err}")
    for name, writer in writers.items():
        writer.close()
        if writer.count != n and not summary["refused"]:
            summary["refused"].append(f"{name}: {writer.count} pictures for {n} rows")
    summary["native_size"] = sizes
    summary["pixels"] = {name: _pixels(found) for name, found in samples.items() if found}
    summary["size"] = [width, height]
    summary["thumbnails"] = [
        _thumbnail([strips[k][c.name] for c in contract.cameras if c.name in strips[k]])
        for k in shown
    ]


def _pixels(frames: list[Any]) -> dict[str, Any]:
    """Per-channel statistics of sampled frames, 0..1 and shaped (3, 1, 1) as LeRobot has them."""
    # From counts per level: exact, and a tenth of the time of the pixels themselves.
    levels = np.arange(256) / 255.0
    count = np.zeros((3, 256))
    for frame in frames:
        for c in range(3):
            count[c] += np.bincount(frame[..., c].ravel(), minlength=256)
    share = count / count.sum(axis=1, keepdims=True)
    mean = share @ levels
    parts = {
        "min": np.array([levels[c > 0][0] for c in count]),
        "max": np.array([levels[c > 0][-1] for c in count]),
        "mean": mean,
        "std": np.sqrt(np.maximum(share @ levels**2 - mean**2, 0.0)),
    }
    values = {k: v.reshape(3, 1, 1).tolist() for k, v in parts.items()}
    return {**values, "count": [len(frames)]}


def _thumbnail(views: list[Any]) -> str:
    """Views side by side, 112 pixels high, as base64 JPEG; empty without a view."""
    if not views:
        return ""
    small = [cv2.resize(v, (round(v.shape[1] * 112 / v.shape[0]), 112)) for v in views]
    ok, data = cv2.imencode(".jpg", np.hstack(small)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])
    return base64.b64encode(data.tobytes()).decode() if ok else ""


def _plot_data(contract: Contract, rows: Rows, most: int = 240) -> dict[str, Any]:
    """State and action per joint, thinned for plotting."""
    every = max(1, len(rows.t) // most)
    names = [n for n in contract.action_names if n in contract.state_names]
    return {
        "t": np.round(rows.t[::every] - rows.t[0], 3).tolist(),
        "groups": [
            {
                "name": g.name,
                "joints": [
                    {
                        "name": j.name,
                        "state": _column(rows.state, contract.state_names, j.name, every),
                        "action": _column(rows.action, contract.action_names, j.name, every),
                    }
                    for j in g.joints
                    if j.name in names
                ],
            }
            for g in contract.groups
            if any(j.name in names for j in g.joints)
        ],
    }


def _column(data: Any, names: tuple[str, ...], joint: str, every: int) -> list[float]:
    return [float(x) for x in np.round(data[::every, names.index(joint)], 4)]


def _write_rows(rows: Rows, path: Path) -> None:
    table = pa.table(
        {
            "state": pa.array(rows.state.astype(np.float32).tolist(), pa.list_(pa.float32())),
            "action": pa.array(rows.action.astype(np.float32).tolist(), pa.list_(pa.float32())),
            "language": rows.language,
            "human": rows.human,
            "t": rows.t,
        }
    )
    pq.write_table(table, path)


__all__ = ["DONE", "Options", "Outcome", "convert_bag", "key_of"]
