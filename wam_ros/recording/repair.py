"""Make a bag whole again that a crash or a full disk cut short."""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from mcap.exceptions import McapError
from mcap.reader import make_reader
from mcap.records import Channel, Message, Metadata, Schema
from mcap.stream_reader import StreamReader
from mcap.writer import CompressionType, Writer

from wam_ros.recording import metadata
from wam_ros.recording.bag import OPEN
from wam_ros.recording.episode import EPISODE_RECORD, VERDICT_RECORD, from_records
from wam_ros.recording.metadata import Topic


@dataclass(frozen=True)
class Repaired:
    """A bag that was mended: what it holds now, and how many bytes at its end were no use."""

    folder: Path
    messages: int
    seconds: float
    lost_bytes: int


def needs_repair(folder: Path) -> bool:
    """Whether the bag was left open or has no readable end."""
    info = metadata.read(folder)
    if not info or (info.get("custom_data") or {}).get(OPEN):
        return True
    try:
        with _mcap(folder).open("rb") as f:
            return make_reader(f).get_summary() is None
    except (OSError, McapError):
        return True


def repair_all(root: Path) -> list[Repaired]:
    """Mend every cut bag directly under ``root``; one that is being written is left alone."""
    done = []
    for mcap in sorted(root.glob("*/*_0.mcap")):
        if needs_repair(mcap.parent):
            found = repair(mcap.parent)
            if found:
                done.append(found)
    return done


def repair(folder: Path) -> Repaired | None:
    """Rewrite the bag up to the last whole chunk, with index and metadata.yaml.

    The verdict becomes ``interrupted`` unless one is in the file. Returns None while a recorder
    still writes the bag, and for a file that holds no message at all.
    """
    path = _mcap(folder)
    with path.open("rb") as source:
        try:
            fcntl.flock(source, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        draft = path.with_suffix(".mending")
        with draft.open("wb") as target:
            writer = Writer(target, chunk_size=4 * 1024 * 1024, compression=CompressionType.NONE)
            copied = _copy(source, writer)
        if not copied.messages:
            draft.unlink()
            return None
        lost = path.stat().st_size - copied.end
        os.replace(draft, path)
    custom = dict((metadata.read(folder).get("custom_data")) or {})
    if custom.pop(OPEN, "") or custom.get("wam_verdict", "none") == "none":
        custom.pop("wam_verdict", None)
    verdict = copied.records.get(VERDICT_RECORD) or {"verdict": "interrupted", "note": ""}
    episode = from_records(copied.records.get(EPISODE_RECORD, {}), verdict, custom)
    metadata.write(
        folder,
        path.name,
        list(copied.topics.values()),
        copied.first,
        copied.last,
        {**custom, **episode.as_custom_data()},
    )
    return Repaired(folder, copied.messages, (copied.last - copied.first) * 1e-9, lost)


@dataclass
class _Copied:
    records: dict[str, dict[str, str]]
    topics: dict[str, Topic]
    messages: int = 0
    first: int = 0
    last: int = 0
    end: int = 0


def _copy(source: Any, writer: Writer) -> _Copied:
    """Copy every whole record; what follows the first broken one is left out."""
    out = _Copied({}, {})
    schemas: dict[int, tuple[str, int]] = {}
    channels: dict[int, tuple[int, str]] = {}
    writer.start(profile="ros2", library="wam_ros repair")
    try:
        for record in StreamReader(source).records:
            if isinstance(record, Metadata):
                out.records[record.name] = dict(record.metadata)
                writer.add_metadata(record.name, dict(record.metadata))
            elif isinstance(record, Schema) and record.id not in schemas:
                new = writer.register_schema(record.name, record.encoding, record.data)
                schemas[record.id] = (record.name, new)
            elif isinstance(record, Channel) and record.id not in channels:
                name, schema = schemas[record.schema_id]
                new = writer.register_channel(
                    record.topic, record.message_encoding, schema, dict(record.metadata)
                )
                channels[record.id] = (new, record.topic)
                out.topics[record.topic] = Topic(
                    record.topic,
                    name,
                    yaml.safe_load(record.metadata.get("offered_qos_profiles", "[]")) or [],
                    record.metadata.get("topic_type_hash", ""),
                )
            elif isinstance(record, Message):
                new, topic = channels[record.channel_id]
                writer.add_message(
                    new, record.log_time, record.data, record.publish_time, record.sequence
                )
                out.topics[topic].count += 1
                out.messages += 1
                out.first = min(out.first or record.log_time, record.log_time)
                out.last = max(out.last, record.log_time)
            out.end = source.tell()
    except Exception:
        # The library raises whatever the first broken byte leads to: EndOfFile, struct.error,
        # a failed checksum, a decompression error. All mean the same here.
        pass
    writer.finish()
    return out


def _mcap(folder: Path) -> Path:
    files = sorted(folder.glob("*.mcap"))
    if not files:
        raise FileNotFoundError(f"{folder} holds no .mcap file")
    return files[0]
