"""Write one episode as a rosbag2 folder: NAME/NAME_0.mcap and metadata.yaml."""

from __future__ import annotations

import fcntl
import time
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, cast

from mcap.writer import CompressionType, Writer

from wam_ros.recording import metadata
from wam_ros.recording.definitions import definition
from wam_ros.recording.episode import EPISODE_RECORD, VERDICT_RECORD, Episode, Verdict
from wam_ros.recording.metadata import Topic

FLUSH_PERIOD = 1.0
"""Seconds of recording that a crash may cost, at most."""
OPEN = "wam_open"
"""Entry of ``custom_data`` while a bag is being written; what a crash leaves behind."""
COMPRESSION = {"none": CompressionType.NONE, "zstd": CompressionType.ZSTD}
_CHUNK = 4 * 1024 * 1024
_PIECE = 64 * 1024


class SmallWrites:
    """A file that is given little at a time.

    The kernel takes what one call hands over without letting anybody else run on that core: a chunk
    of 4 MB kept a control loop waiting for 5 ms, whatever its priority.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb", buffering=_PIECE)

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Write all of ``data``; returns its length."""
        view = memoryview(data).cast("B")
        for start in range(0, len(view), _PIECE):
            self._file.write(view[start : start + _PIECE])
        return len(view)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class BagWriter:
    """Writes messages as they come; every second all of them are in the file.

    Parameters
    ----------
    folder
        Bag folder to create; its name becomes the bag's.
    episode
        Goes into the bag before the first message, so that a crash cannot lose it.
    compression
        ``none`` or ``zstd``, per chunk inside the MCAP.

    Raises
    ------
    FileExistsError
        The folder exists.
    """

    def __init__(self, folder: Path, episode: Episode, compression: str = "none") -> None:
        folder.mkdir(parents=True)
        self.folder, self.episode = folder, episode
        self.topics: dict[str, Topic] = {}
        self.start_ns = self.end_ns = 0
        self._channels: dict[str, int] = {}
        self._mcap = folder / f"{folder.name}_0.mcap"
        self._file: IO[Any] = cast(IO[Any], SmallWrites(self._mcap))
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # nobody repairs it meanwhile
        self._writer = Writer(self._file, chunk_size=_CHUNK, compression=COMPRESSION[compression])
        self._writer.start(profile="ros2", library="wam_ros recorder")
        self._writer.add_metadata(EPISODE_RECORD, episode.as_record())
        self._flushed = time.monotonic()
        self._metadata({OPEN: "true"})
        self._file.flush()

    def add_topic(self, topic: Topic) -> None:
        """Announce a topic; its schema and QoS go into the file.

        Raises
        ------
        DefinitionMissing
            The type's definition is not installed.
        """
        text = definition(topic.type).encode()
        schema = self._writer.register_schema(topic.type, "ros2msg", text)
        self._channels[topic.name] = self._writer.register_channel(
            topic.name,
            "cdr",
            schema,
            {
                "offered_qos_profiles": metadata.qos_text(topic.qos),
                "topic_type_hash": topic.type_hash,
            },
        )
        self.topics[topic.name] = replace(topic, count=0)

    def write(self, topic: str, data: bytes, log_ns: int, publish_ns: int, sequence: int) -> None:
        """Append one serialized message; KeyError when the topic was not announced."""
        self._writer.add_message(
            self._channels[topic], log_ns, data, publish_ns, sequence & 0xFFFFFFFF
        )
        self.topics[topic].count += 1
        self.start_ns = min(self.start_ns or log_ns, log_ns)
        self.end_ns = max(self.end_ns, log_ns)

    def flush_if_due(self) -> None:
        """Hand everything to the operating system once `FLUSH_PERIOD` has passed."""
        if time.monotonic() - self._flushed >= FLUSH_PERIOD:
            self._writer.flush()
            self._flushed = time.monotonic()

    @property
    def size(self) -> int:
        """Bytes in the file so far."""
        return self._mcap.stat().st_size

    def close(self, verdict: Verdict, note: str = "") -> Path:
        """Finish the file with the verdict in it; returns the bag's folder."""
        self.episode = replace(self.episode, verdict=verdict, note=note)
        self._writer.add_metadata(VERDICT_RECORD, {"verdict": verdict, "note": note})
        self._writer.finish()
        self._file.close()
        self._metadata({})
        return self.folder

    def _metadata(self, extra: dict[str, str]) -> None:
        custom = {**self.episode.as_custom_data(), **extra}
        topics = list(self.topics.values())
        metadata.write(self.folder, self._mcap.name, topics, self.start_ns, self.end_ns, custom)
