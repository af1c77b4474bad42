"""Record episodes: a queue that takes messages at once, a thread that writes them."""

from __future__ import annotations

import contextlib
import datetime
import queue
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from wam_ros.recording import metadata
from wam_ros.recording.bag import BagWriter
from wam_ros.recording.definitions import DefinitionMissing
from wam_ros.recording.episode import Episode, Verdict
from wam_ros.recording.metadata import Topic
from wam_ros.recording.monitor import DiskGuard, TopicMonitor

DISCARDED = "discarded"
"""Sub-folder discarded bags move to; `wam dataset` does not look there."""
_QUEUE_BYTES = 512 * 1024 * 1024


class RecorderError(RuntimeError):
    """An episode that cannot be started, ended or discarded; says why and what to do."""


class Arrival(NamedTuple):
    """One serialized message as it came: ``arrival`` in s on the monotonic clock, rest in ns.

    ``sequence`` counts its publisher's messages, None where that is not known.
    """

    topic: str
    data: bytes
    log_ns: int
    publish_ns: int
    sequence: int | None
    arrival: float


@dataclass(frozen=True)
class Settings:
    """Where and how to record. ``min_free`` is in bytes."""

    out: Path
    compression: str = "none"
    min_free: int = 2_000_000_000


@dataclass(frozen=True)
class Status:
    """What a person wants to see while recording."""

    recording: bool
    folder: str
    seconds: float
    messages: int
    megabytes: float
    lost: int
    overflow: int
    warnings: tuple[str, ...]
    episodes: int
    last: str
    rates: dict[str, float]
    """Topic -> messages per second at present, also between episodes."""


class Recorder:
    """Writes what `put` brings while an episode runs; thread-safe.

    Parameters
    ----------
    settings
        Target folder, compression, disk to keep free.
    make_episode
        Builds the Episode for an instruction.
    on_abort
        Called with the reason when the disk guard ends an episode by itself.
    on_thread
        Called first by the thread that writes, for example to lower its priority.
    """

    def __init__(
        self,
        settings: Settings,
        make_episode: Callable[[str], Episode],
        on_abort: Callable[[str], None] = lambda _: None,
        on_thread: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings, self._make, self._on_abort = settings, make_episode, on_abort
        self._on_thread = on_thread
        self._guard = DiskGuard(settings.out, settings.min_free)
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._queued = 0
        self._bag: BagWriter | None = None
        self._thread: threading.Thread | None = None
        self._monitors: dict[str, TopicMonitor] = {}
        self._idle: dict[str, TopicMonitor] = {}
        self._began = 0.0
        self._overflow = 0
        self._failed = ""
        self._folder = ""
        self._last: Path | None = None
        self.episodes = 0

    @property
    def recording(self) -> bool:
        """Whether an episode runs."""
        return self._bag is not None

    @property
    def last(self) -> Path | None:
        """The newest finished bag that was not discarded."""
        return self._last

    def start(
        self,
        instruction: str,
        topics: list[Topic],
        rates: dict[str, float],
        stamped: set[str],
    ) -> Path:
        """Begin an episode; ``rates`` (Hz) and ``stamped`` say what to expect of which topic.

        Raises
        ------
        RecorderError
            One is running already, the disk is nearly full, or the folder cannot be written.
        """
        with self._lock:
            if self._bag is not None:
                raise RecorderError(f"{self._bag.folder.name} is being recorded; stop it first")
            problem = self._guard.problem()
            if problem:
                raise RecorderError(problem)
            episode = self._make(instruction)
            try:
                bag = BagWriter(self._name(instruction), episode, self._settings.compression)
            except OSError as err:
                raise RecorderError(f"cannot write to {self._settings.out}: {err}") from err
            self._monitors, self._idle = {}, {}
            for topic in topics:
                try:
                    bag.add_topic(topic)
                except DefinitionMissing as err:
                    self._on_abort(f"{topic.name} is not recorded: {err}")
                    continue
                self._monitors[topic.name] = TopicMonitor(
                    topic.name,
                    rates.get(topic.name),
                    stamped=topic.name in stamped,
                    # Every publisher counts for itself; with two the numbers mean nothing.
                    counted=len(topic.qos) == 1,
                )
            self._queue = queue.SimpleQueue()
            self._queued = self._overflow = 0
            self._failed = ""
            self._began = time.monotonic()
            self._bag, self._folder = bag, str(bag.folder)
            self._thread = threading.Thread(
                target=self._write, args=(bag, self._queue), daemon=True
            )
            self._thread.start()
            return bag.folder

    def put(self, arrivals: Sequence[Arrival]) -> None:
        """Take serialized messages; returns at once, also while the disk is slow.

        Between episodes they are counted, so that `status` can tell who is there, and dropped.
        """
        if self._bag is None:
            for message in arrivals:
                watch = self._idle.setdefault(message.topic, TopicMonitor(message.topic))
                watch.add(message.arrival, message.data, message.sequence)
            return
        accepted = []
        for message in arrivals:
            monitor = self._monitors.get(message.topic)
            if monitor is None:
                continue
            monitor.add(message.arrival, message.data, message.sequence)
            if self._queued > _QUEUE_BYTES:
                self._overflow += 1  # memory is finite; said in the status and in the report
                continue
            self._queued += len(message.data)
            accepted.append(message)
        if accepted:
            self._queue.put(accepted)

    def _write(self, bag: BagWriter, batches: queue.SimpleQueue[Any]) -> None:
        self._on_thread()
        checked = time.monotonic()
        while True:
            try:
                batch = batches.get(timeout=0.5)
            except queue.Empty:
                batch = ()
            if batch is None:
                return
            try:
                for topic, data, log_ns, publish_ns, sequence, _ in batch:
                    bag.write(topic, data, log_ns, publish_ns, sequence or 0)
                    self._queued -= len(data)
                bag.flush_if_due()
            except OSError as err:
                self._abort(bag, f"cannot write {bag.folder}: {err}")
                return
            if time.monotonic() - checked > 1.0:
                checked = time.monotonic()
                problem = self._guard.problem()
                if problem:
                    self._abort(bag, problem)
                    return

    def _abort(self, bag: BagWriter, reason: str) -> None:
        """End ``bag`` from another thread: `stop` waits for the one that calls this."""
        self._failed = reason

        def end() -> None:
            with contextlib.suppress(RecorderError):
                if self._bag is bag:
                    self.stop("interrupted", reason)
            self._on_abort(f"recording stopped: {reason}")

        threading.Thread(target=end, daemon=True).start()

    def stop(self, verdict: Verdict, note: str = "") -> Path:
        """End the episode; with ``discard`` it goes to the folder for discarded bags.

        With no episode running, the verdict is given to the last one.

        Raises
        ------
        RecorderError
            There is no episode to end or to judge, or the file could not be finished.
        """
        with self._lock:
            if self._bag is None:
                return self._judge_last(verdict, note)
            bag, thread = self._bag, self._thread
            self._bag = None
            self._queue.put(None)
            if thread is not None:
                thread.join()
            if self._overflow:
                note = f"{note}; {self._overflow} messages dropped, disk too slow".strip("; ")
            try:
                folder = bag.close(verdict, note)
            except OSError as err:
                raise RecorderError(
                    f"{bag.folder} could not be finished ({err}); it is repaired at next start"
                ) from err
            if verdict == "discard":
                return self._discard(folder)  # the one before it stays the last
            self.episodes += 1
            self._last = folder
            return folder

    def _judge_last(self, verdict: Verdict, note: str) -> Path:
        if self._last is None:
            raise RecorderError("nothing is being recorded and no episode was recorded before")
        if verdict == "discard":
            folder, self._last = self._last, None  # a second press must not take one more
            metadata.amend(folder, {"wam_verdict": verdict})
            self.episodes -= 1
            return self._discard(folder)
        custom = {"wam_verdict": str(verdict)}
        metadata.amend(self._last, {**custom, **({"wam_note": note} if note else {})})
        return self._last

    def _discard(self, folder: Path) -> Path:
        target = self._settings.out / DISCARDED / folder.name
        target.parent.mkdir(exist_ok=True)
        folder.rename(target)
        return target

    def status(self) -> Status:
        """Figures and warnings of the running, or else the last, episode."""
        now, bag = time.monotonic(), self._bag
        monitors = list(self._monitors.values())
        watched = monitors if bag else list(self._idle.values())
        warnings = [m.warning(now, self._began) for m in monitors] if bag else []
        if self._overflow:
            warnings.insert(0, f"{self._overflow} messages dropped: the disk is too slow")
        return Status(
            recording=bag is not None,
            folder=self._folder,
            seconds=now - self._began if bag else 0.0,
            messages=sum(m.count for m in monitors),
            megabytes=bag.size / 1e6 if bag else 0.0,
            lost=sum(m.lost for m in monitors),
            overflow=self._overflow,
            warnings=tuple(w for w in [self._failed, *warnings] if w),
            episodes=self.episodes,
            last=str(self._last or ""),
            rates={m.topic: m.current(now) for m in watched},
        )

    def loss(self) -> dict[str, tuple[int, int]]:
        """Topic -> messages taken and messages lost before they got here."""
        return {m.topic: (m.count, m.lost) for m in self._monitors.values()}

    def _name(self, instruction: str) -> Path:
        stamp = datetime.datetime.now().strftime("%Y%m%d_%H%M%S")
        words = "_".join(re.findall(r"[a-z0-9]+", instruction.lower()))[:48].strip("_")
        name = f"{stamp}_{words}" if words else stamp
        folder, n = self._settings.out / name, 1
        while folder.exists() or (self._settings.out / DISCARDED / folder.name).exists():
            n += 1
            folder = self._settings.out / f"{name}_{n}"
        return folder


def with_start(episode: Episode) -> Episode:
    """The episode with the local time of now."""
    return replace(episode, started=datetime.datetime.now().astimezone().isoformat("T", "seconds"))
