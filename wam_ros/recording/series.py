"""First pass over a bag: every source as stamps and values, by the rules of live perception."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from wam_ros.contract.model import ActionSource, Camera, Contract, StateSource
from wam_ros.perception.joints import JointError, read
from wam_ros.perception.sync import SourceSpec, succession
from wam_ros.recording.monitor import header_stamp
from wam_ros.recording.reader import BagError, BagReader, Raw

JUMP = 0.2
"""Seconds by which a source's stamp may move against the recording time from one to the next."""
_JOINT_STATE = "sensor_msgs/msg/JointState"


@dataclass
class Series:
    """Samples of one source. A camera's values are message numbers; pictures stay in the file."""

    spec: SourceSpec
    stamps: list[float] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)
    arrivals: list[float] = field(default_factory=list)
    received: int = 0
    out_of_order: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    _offsets: list[float] = field(default_factory=list)

    def add(self, stamp: float, arrival: float, value: Any) -> None:
        """Take a sample as `Aligner.push` would."""
        self._offsets.append(stamp - arrival)
        if succession(self.stamps[-1] if self.stamps else None, stamp) != "newer":
            self.out_of_order += 1
            return
        self.stamps.append(stamp)
        self.arrivals.append(arrival)
        self.values.append(value)

    def jump(self) -> float:
        """Largest lasting jump of the source's clock against the recording time, in seconds.

        Where stamp minus arrival moves by more than `JUMP` from one message to the next, the
        medians before and after are compared; a burst of late messages does not move those.
        """
        offsets = np.asarray(self._offsets)
        largest = 0.0
        for k in np.flatnonzero(np.abs(np.diff(offsets)) > JUMP) + 1:
            moved = float(np.median(offsets[k:]) - np.median(offsets[:k]))
            if abs(moved) > max(JUMP, abs(largest)):
                largest = moved
        return largest


@dataclass
class Recording:
    """Everything of a bag that alignment needs, pictures aside."""

    contract: Contract
    cameras: dict[str, Series]
    sources: dict[str, Series]
    commands: list[tuple[ActionSource, Series]]
    armed: list[tuple[float, bool]]
    instructions: list[tuple[float, str]]
    start: float
    end: float
    messages: int


def spec_of(source: StateSource | Camera) -> SourceSpec:
    """How a source takes part in alignment."""
    return SourceSpec(source.name, source.policy, source.tolerance, source.timeout)


def as_recorded(source: Any, recorded: str) -> Any:
    """The source as its messages are in the bag.

    A simulation, and a machine without the vendor's messages, has JointState in its place, with
    the same raw values; perception does the same.
    """
    if recorded == _JOINT_STATE and source.type != _JOINT_STATE:
        return replace(source, field="position", names_field="name")
    return source


def read_recording(bag: BagReader, contract: Contract) -> Recording:
    """Read a whole bag once.

    Raises
    ------
    BagError
        No message at all, or a topic whose type is not what the contract says.
    """
    cameras = {c.name: Series(spec_of(c)) for c in contract.cameras}
    sources = {s.name: Series(spec_of(s)) for s in contract.sources}
    commands = [(s, Series(spec_of(s))) for s in contract.command_sources]
    takers: dict[str, list[Callable[[Raw], None]]] = {}
    for camera in contract.cameras:
        takers.setdefault(camera.topic, []).append(_frames(camera, cameras[camera.name]))
    for source in contract.sources:
        takers.setdefault(source.topic, []).append(_joints(bag, source, sources[source.name]))
    for command, series in commands:
        takers.setdefault(command.topic, []).append(_joints(bag, command, series))
    own = _Own(bag)
    first = last = 0
    count = 0
    for raw in bag.messages():
        count += 1
        first, last = min(first or raw.log_ns, raw.log_ns), max(last, raw.log_ns)
        for take in takers.get(raw.topic) or takers.setdefault(raw.topic, own.taker(raw.topic)):
            take(raw)
    if not count:
        raise BagError(f"{bag.folder} holds no messages{': ' if bag.truncated else ''}"
                       f"{bag.truncated}")  # fmt: skip
    return Recording(
        contract, cameras, sources, commands, own.armed, own.instructions,
        first * 1e-9, last * 1e-9, count,
    )  # fmt: skip


def _frames(camera: Camera, series: Series) -> Callable[[Raw], None]:
    def take(raw: Raw) -> None:
        number = series.received
        series.received += 1
        arrival = raw.log_ns * 1e-9
        stamp = header_stamp(raw.data) if camera.timeline == "header" else arrival
        if stamp is not None:
            series.add(stamp, arrival, number)

    return take


def _joints(bag: BagReader, source: StateSource, series: Series) -> Callable[[Raw], None]:
    known: list[Any] = []

    def take(raw: Raw) -> None:
        if not known:
            known.extend([as_recorded(source, bag.types[raw.topic]), bag.decoder(raw.topic)])
        actual, decode = known
        series.received += 1
        arrival = raw.log_ns * 1e-9
        message = decode(raw.data)
        try:
            values = read(message, actual)
            stamp = _stamp(message) if actual.timeline == "header" else arrival
        except JointError as err:
            series.faults[str(err)] = series.faults.get(str(err), 0) + 1
            return
        series.add(stamp, arrival, values)

    return take


def _stamp(message: Any) -> float:
    """Header stamp in seconds; the same arithmetic as the live node's."""
    stamp = message.header.stamp
    return float(stamp.sec) + float(stamp.nanosec) * 1e-9


class _Own:
    """What our own nodes say: who is armed, and which instruction is in force."""

    def __init__(self, bag: BagReader) -> None:
        self._bag = bag
        self._policy: str | None = None
        self.armed: list[tuple[float, bool]] = []
        self.instructions: list[tuple[float, str]] = []

    def taker(self, topic: str) -> list[Callable[[Raw], None]]:
        """Readers for one topic of the bag; none when it is nothing of ours."""
        kind = self._bag.types[topic]
        if kind == "wam_ros/msg/ExecutorState":
            return [self._reader(topic, self._on_executor)]
        if kind == "wam_ros/msg/PolicyState":
            return [self._reader(topic, self._on_policy)]
        if kind == "std_msgs/msg/String" and topic.rsplit("/", 1)[-1] == "instruction":
            return [self._reader(topic, self._on_instruction)]
        return []

    def _reader(self, topic: str, take: Callable[[float, Any], None]) -> Callable[[Raw], None]:
        decode = self._bag.decoder(topic)
        return lambda raw: take(raw.log_ns * 1e-9, decode(raw.data))

    def _on_executor(self, t: float, message: Any) -> None:
        self.armed.append((t, bool(message.armed)))

    def _on_policy(self, t: float, message: Any) -> None:
        # The first state may still carry the instruction before this episode's.
        if self._policy is not None and message.instruction not in ("", self._policy):
            self.instructions.append((t, message.instruction))
        self._policy = message.instruction

    def _on_instruction(self, t: float, message: Any) -> None:
        text = message.data.strip()
        if text:
            self.instructions.append((t, text))
