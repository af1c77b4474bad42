"""Read a bag without ROS: its episode, its topics, its messages in file order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mcap.records import Channel, Message, Metadata, Schema
from mcap.stream_reader import StreamReader
from mcap_ros2.decoder import DecoderFactory

from wam_ros.recording import metadata
from wam_ros.recording.episode import EPISODE_RECORD, VERDICT_RECORD, Episode, from_records


class BagError(ValueError):
    """A bag that cannot be read; names the file and what to do."""


@dataclass(frozen=True)
class Raw:
    """One serialized message; time in nanoseconds, ``sequence`` as its publisher counted."""

    topic: str
    log_ns: int
    data: bytes
    sequence: int = 0


class BagReader:
    """One bag: a rosbag2 folder, or its .mcap file.

    Reading goes through the file from front to back and ends at the first broken record, so a cut
    file gives what it holds; `truncated` tells after a full pass.

    Raises
    ------
    BagError
        Nothing there that can be read.
    """

    def __init__(self, path: Path) -> None:
        self.folder = path if path.is_dir() else path.parent
        files = sorted(path.glob("*.mcap")) if path.is_dir() else [path]
        if not files or not files[0].is_file():
            other = list(path.glob("*.db3"))
            hint = "; convert it with `ros2 bag convert` to mcap" if other else ""
            raise BagError(f"{path} holds no .mcap file{hint}")
        self.files = files
        self.truncated = ""
        self.types: dict[str, str] = {}
        self._schemas: dict[str, Schema] = {}
        self._records: dict[str, dict[str, str]] = {}

    def messages(self) -> Iterator[Raw]:
        """Every message of every topic, in file order; learns topics and records on the way."""
        for path in self.files:
            yield from self._file(path)

    def _file(self, path: Path) -> Iterator[Raw]:
        schemas: dict[int, Schema] = {}
        topics: dict[int, str] = {}
        complete = False
        with path.open("rb") as f:
            records = iter(StreamReader(f).records)
            while True:
                try:
                    record = next(records)
                except StopIteration:
                    break
                except Exception as err:
                    # The library raises whatever the first broken byte leads to.
                    self.truncated = f"{path.name} is cut: {type(err).__name__}"
                    return
                if isinstance(record, Message):
                    yield Raw(
                        topics[record.channel_id], record.log_time, record.data, record.sequence
                    )
                elif isinstance(record, Schema):
                    schemas[record.id] = record
                elif isinstance(record, Channel):
                    topics[record.id] = record.topic
                    schema = schemas[record.schema_id]
                    self.types[record.topic] = schema.name
                    self._schemas[record.topic] = schema
                elif isinstance(record, Metadata):
                    self._records[record.name] = dict(record.metadata)
                elif type(record).__name__ == "Footer":
                    complete = True
        if not complete:
            self.truncated = f"{path.name} is cut: it has no end"

    def episode(self) -> Episode | None:
        """What the bag says about itself, after a pass; None when another recorder wrote it."""
        if EPISODE_RECORD not in self._records:
            return None
        custom = metadata.read(self.folder).get("custom_data") or {}
        return from_records(
            self._records[EPISODE_RECORD], self._records.get(VERDICT_RECORD, {}), custom
        )

    def decoder(self, topic: str) -> Callable[[bytes], Any]:
        """Function that turns a topic's bytes into an object with the message's fields."""
        found = DecoderFactory().decoder_for("cdr", self._schemas[topic])
        if found is None:
            raise BagError(f"{self.folder}: {topic} is not CDR with a ros2msg schema")
        return found
