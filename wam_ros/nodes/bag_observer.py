"""Write a rollout into a bag: the messages the nodes would have sent, stamped by its clock."""

from __future__ import annotations

import datetime
import math
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CompressedImage, JointState
from std_msgs.msg import String

from wam_ros.contract.data import ActionChunk, FloatArray
from wam_ros.contract.model import Camera, Contract, StateSource
from wam_ros.execution.outputs import Channel
from wam_ros.msg import PolicyState, SimState
from wam_ros.nodes.convert import chunk_to_msg, image_msg, to_stamp
from wam_ros.nodes.publishers import command_message
from wam_ros.nodes.states import executor_state
from wam_ros.nodes.topics import OWN, recorded_kind
from wam_ros.recording.bag import BagWriter
from wam_ros.recording.definitions import type_hash
from wam_ros.recording.episode import Episode as Record
from wam_ros.recording.episode import Verdict
from wam_ros.recording.metadata import Topic, qos_profile
from wam_ros.rollout import Episode, Observer, Rollout
from wam_ros.rollout.sensors import Picture
from wam_ros.sim.tasks import InstructionError, PlayTask, parse_instruction

PICTURES = ("raw", "png", "jpeg")
_JPEG_QUALITY = 95
_SENSOR = ("best_effort", "volatile", 5)
_QOS = {
    "executor_state": ("reliable", "transient_local", 1),
    "policy_state": ("reliable", "transient_local", 1),
    "action_chunk": ("reliable", "volatile", 1),
}
_RELIABLE = ("reliable", "volatile", 10)
_COMMAND = ("reliable", "volatile", 1)
_RUNNING, _READY = 4, 3


@dataclass(frozen=True)
class Options:
    """How a bag is written.

    ``pictures`` is ``raw`` (sensor_msgs/Image, as the simulation sends them), or ``png`` (exact) or
    ``jpeg`` (quality 95) as CompressedImage; ``compression`` is the bag's own, ``none`` or
    ``zstd``. ``namespace`` is that of the nodes that are not there.
    """

    pictures: str = "raw"
    compression: str = "zstd"
    namespace: str = "wam"


def verdict_of(episode: Episode, contract: Contract) -> Verdict:
    """Whether what was asked for last was carried out; ``none`` where it has no goal (play).

    A sentence that another one cut short says nothing about the episode.
    """
    last = episode.segments[-1]
    try:
        task = parse_instruction(last.instruction, contract)
    except InstructionError:
        return "failure"
    if isinstance(task, PlayTask):
        return "none"
    return "success" if last.success else "failure"


class BagObserver(Observer):
    """Records one episode into ``folder``, from its first instruction to its end.

    `discard` removes what there is, for an episode that was cut short.
    """

    def __init__(self, folder: Path, options: Options | None = None, note: str = "") -> None:
        self.folder, self._options, self._note = folder, options or Options(), note
        self._bag: BagWriter | None = None
        self._begin = math.inf
        self._sequence: dict[str, int] = {}
        self._fills: dict[str, Any] = {}
        self._looks = 0
        self._said = ""
        self._chunk: ActionChunk | None = None
        if self._options.pictures not in PICTURES:
            raise ValueError(f"pictures '{self._options.pictures}': choose {', '.join(PICTURES)}")

    # ---- beginning and end ---------------------------------------------------------------------

    def on_start(self, rollout: Rollout, instruction: str, t: float) -> None:
        """Open the bag and announce its topics."""
        contract = rollout.contract
        settings = rollout.settings
        self._contract, self._begin, self._rollout = contract, t, rollout
        record = Record(
            contract.robot,
            Path(contract.path).read_text(encoding="utf-8"),
            instruction,
            simulated=True,
            started=datetime.datetime.now().astimezone().isoformat("T", "seconds"),
        )
        record.versions["rollout"] = (
            f"lockstep, seed {rollout.seed}, {rollout.policy.name}, {rollout.cadence}, "
            f"pictures {settings.render_width} px wide as {self._options.pictures}, "
            f"joints {settings.state_rate:g} Hz"
        )
        self._bag = BagWriter(self.folder, record, self._options.compression)
        for topic in self._topics(contract):
            self._bag.add_topic(topic)
            self._sequence[topic.name] = 0

    def _topics(self, contract: Contract) -> list[Topic]:
        """What the recorder node subscribes to in simulation, in its order."""
        found: dict[str, tuple[str, tuple[str, str, int]]] = {}
        for source in contract.inputs:
            camera = isinstance(source, Camera)
            kind = "sensor_msgs/msg/CompressedImage" if camera and self._compressed else source.type
            found.setdefault(source.topic, (recorded_kind(kind), _SENSOR))
        for command in contract.command_sources:
            found.setdefault(command.topic, (recorded_kind(command.type), _COMMAND))
        for name, kind, _ in OWN:
            found.setdefault(self._name(name), (kind, _QOS.get(name, _RELIABLE)))
        return [
            Topic(name, kind, [qos_profile(*qos)], type_hash(kind))
            for name, (kind, qos) in found.items()
        ]

    def _name(self, name: str) -> str:
        return name if name.startswith("/") else f"/{self._options.namespace}/{name}"

    @property
    def _compressed(self) -> bool:
        return self._options.pictures != "raw"

    def on_end(self, episode: Episode) -> None:
        """Finish the bag with the verdict."""
        assert self._bag is not None
        verdict = verdict_of(episode, self._contract)
        reason = episode.error or episode.stopped
        self._bag.close(verdict, "; ".join(x for x in (self._note, reason) if x))
        self._bag = None

    def _write(self, topic: str, t: float, message: Any, arrival: float | None = None) -> None:
        if self._bag is None or t < self._begin - 1e-9:
            return
        log = round((t if arrival is None else arrival) * 1e9)
        self._sequence[topic] += 1
        data = bytes(serialize_message(message))
        self._bag.write(topic, data, log, round(t * 1e9), self._sequence[topic])

    # ---- what is heard -------------------------------------------------------------------------

    def on_joints(self, t: float, source: StateSource, raw: list[float]) -> None:
        """A joint source."""
        message = JointState(name=list(source.joints), position=array("d", raw))
        message.header.stamp = to_stamp(t)
        self._write(source.topic, t, message)

    def on_picture(self, t: float, camera: Camera, picture: Picture) -> None:
        """A picture, drawn now."""
        if t < self._begin - 1e-9:
            return
        stamp, rgb = to_stamp(t), picture.rgb
        if not self._compressed:
            self._write(camera.topic, t, image_msg(rgb, stamp, camera.name))
            return
        kind = self._options.pictures
        flags = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY] if kind == "jpeg" else []
        ok, data = cv2.imencode(f".{kind}", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), flags)
        if not ok:
            raise RuntimeError(f"a picture of '{camera.name}' could not be encoded as {kind}")
        message = CompressedImage(format=kind, data=array("B", data.tobytes()))
        message.header.stamp, message.header.frame_id = stamp, camera.name
        self._write(camera.topic, t, message)

    def on_command(self, t: float, channel: Channel, values: FloatArray) -> None:
        """A command."""
        if t < self._begin - 1e-9:
            return
        name = channel.output.name
        if name not in self._fills:
            core = self._rollout.core
            self._fills[name] = command_message(core, channel)[1]
        self._write(channel.output.topic, t, self._fills[name](values, t))

    def on_instruction(self, t: float, instruction: str) -> None:
        """An instruction."""
        self._said = instruction
        self._write(self._name("instruction"), t, String(data=instruction))
        self._policy_state(t)

    def on_chunk(self, t: float, chunk: ActionChunk, refused: str) -> None:
        """A chunk, when it arrived."""
        first, self._chunk = self._chunk is None, chunk
        self._write(self._name("action_chunk"), t, chunk_to_msg(chunk, self._contract.robot))
        if first:
            self._policy_state(t)

    def on_tick(self, t: float, rollout: Rollout) -> None:
        """State messages, at the nodes' rates."""
        self._looks += 1
        if t < self._begin - 1e-9:
            return
        if self._looks % 10 == 0:  # 10 Hz
            self._write(self._name("executor_state"), t, executor_state(rollout.core, t))
            self._write(self._name("sim/state"), t, self._sim_state(t))
        if self._looks % 50 == 0:
            self._policy_state(t)

    def _sim_state(self, t: float) -> Any:
        segments = self._rollout.segments
        judged = segments[-1] if segments else None
        message = SimState(real_time_factor=1.0, task=self._said, distance=math.nan)
        message.header.stamp = to_stamp(t)
        if judged is not None:
            message.success, message.distance = judged.success, judged.final_distance
            message.progress = judged.final_progress
        return message

    def _policy_state(self, t: float) -> None:
        policy, chunk = self._rollout.policy, self._chunk
        running = chunk is not None and chunk.instruction == self._said
        latency = 0.0 if chunk is None else chunk.inference_end - chunk.inference_start
        message = PolicyState(
            state=_RUNNING if running else _READY,
            state_name="running" if running else "ready",
            backend=policy.name,
            model=policy.model,
            precision=policy.precision,
            cadence=chunk.cadence if chunk is not None else self._rollout.cadence,
            requested_cadence=self._rollout.cadence,
            instruction=self._said,
            chunks=0 if chunk is None else chunk.sequence,
            latency_p50=latency,
            latency_p95=latency,
        )
        message.header.stamp = to_stamp(t)
        self._write(self._name("policy_state"), t, message)
