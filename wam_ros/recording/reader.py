"""Read a bag without ROS: its episode, its topics, its messages in file order."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import IO, Any, NamedTuple

from mcap.data_stream import ReadDataStream
from mcap.exceptions import EndOfFile
from mcap.opcode import Opcode
from mcap.records import Channel, Chunk, Metadata, Schema
from mcap.stream_reader import get_chunk_data_stream
from mcap.writer import MCAP0_MAGIC
from mcap_ros2.decoder import DecoderFactory

from wam_ros.recording import metadata
from wam_ros.recording.cdr import Decoder, quick_decoder
from wam_ros.recording.episode import EPISODE_RECORD, VERDICT_RECORD, Episode, from_records

_RECORD = struct.Struct("<BQ")
_MESSAGE = struct.Struct("<HIQQ")
_KINDS: dict[int, Any] = {
    Opcode.SCHEMA: Schema,
    Opcode.CHANNEL: Channel,
    Opcode.METADATA: Metadata,
}


class BagError(ValueError):
    """A bag that cannot be read; names the file and what to do."""


class Raw(NamedTuple):
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
        self._by_id: dict[int, Schema] = {}
        self._decoders: dict[str, Decoder] = {}
        self._records: dict[str, dict[str, str]] = {}

    def messages(self) -> Iterator[Raw]:
        """Every message of every topic, in file order; learns topics and records on the way."""
        for path in self.files:
            yield from self._file(path)

    def _file(self, path: Path) -> Iterator[Raw]:
        topics: dict[int, str] = {}
        complete = False
        with path.open("rb") as f:
            if f.read(len(MCAP0_MAGIC)) != MCAP0_MAGIC:
                raise BagError(f"{path} is no MCAP file")
            while head := f.read(_RECORD.size):
                try:
                    found = _records(f, head)
                except Exception as err:
                    # The library raises whatever the first broken byte leads to.
                    self.truncated = f"{path.name} is cut: {type(err).__name__}"
                    return
                for record in found:
                    if isinstance(record, tuple):
                        channel, sequence, log_ns, data = record
                        yield Raw(topics[channel], log_ns, data, sequence)
                    else:
                        self._learn(record, topics)
                if head[0] == Opcode.FOOTER:
                    complete = True
                    break
        if not complete:
            self.truncated = f"{path.name} is cut: it has no end"

    def _learn(self, record: Any, topics: dict[int, str]) -> None:
        if isinstance(record, Schema):
            self._by_id[record.id] = record
        elif isinstance(record, Channel):
            topics[record.id] = record.topic
            schema = self._by_id[record.schema_id]
            self.types[record.topic] = schema.name
            self._schemas[record.topic] = schema
        elif isinstance(record, Metadata):
            self._records[record.name] = dict(record.metadata)

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
        if topic not in self._decoders:
            schema = self._schemas[topic]
            found = DecoderFactory().decoder_for("cdr", schema)
            if found is None:
                raise BagError(f"{self.folder}: {topic} is not CDR with a ros2msg schema")
            text = schema.data.decode(errors="replace")
            self._decoders[topic] = quick_decoder(schema.name, text, found)
        return self._decoders[topic]


def _records(f: IO[bytes], head: bytes) -> list[Any]:
    """The record that ``head`` begins: what is in it, if it is a chunk; nothing for an index."""
    opcode, size = _RECORD.unpack(head)
    if opcode == Opcode.MESSAGE_INDEX:  # many and long; reading on from the front needs none
        f.seek(size, os.SEEK_CUR)
        return []
    body = f.read(size)
    if len(body) < size:
        raise EndOfFile
    if opcode != Opcode.CHUNK:
        return _split(head + body)
    stream, length = get_chunk_data_stream(Chunk.read(ReadDataStream(BytesIO(body))))
    return _split(stream.read(length))


def _split(data: bytes) -> list[Any]:
    """Records in order; messages as (channel, sequence, log time, data).

    Most of what a bag holds are messages of a few hundred bytes; reading their headers in one go
    is several times quicker than building the library's records.
    """
    found: list[Any] = []
    at = 0
    while at < len(data):
        opcode, size = _RECORD.unpack_from(data, at)
        begin, at = at + _RECORD.size, at + _RECORD.size + size
        if at > len(data):
            raise EndOfFile
        if opcode == Opcode.MESSAGE:
            channel, sequence, log_ns, _ = _MESSAGE.unpack_from(data, begin)
            found.append((channel, sequence, log_ns, data[begin + _MESSAGE.size : at]))
        elif opcode in _KINDS:
            found.append(_KINDS[opcode].read(ReadDataStream(BytesIO(data[begin:at]))))
    return found
