"""Record episodes: raw subscriptions to everything the contract names, and our own topics."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from std_msgs.msg import String

from wam_ros.contract import ContractError, load_contract
from wam_ros.contract.model import Camera
from wam_ros.msg import PolicyState, SimState
from wam_ros.nodes.diagnostics import status
from wam_ros.nodes.lifecycle import run
from wam_ros.nodes.topics import OWN
from wam_ros.nodes.types import TypeMissing, message_type, source_type
from wam_ros.recording import metadata
from wam_ros.recording.episode import VERDICTS, Episode
from wam_ros.recording.metadata import Topic
from wam_ros.recording.recorder import Recorder, RecorderError, Settings, with_start
from wam_ros.recording.repair import repair_all
from wam_ros.srv import StartEpisode, StopEpisode

_LATCHED = ("executor_state", "policy_state")
_RELIABILITY = {ReliabilityPolicy.RELIABLE: "reliable"}
_DURABILITY = {DurabilityPolicy.TRANSIENT_LOCAL: "transient_local"}


class RecorderNode(Node):  # type: ignore[misc]
    """Owns the subscriptions and the services; the work is `wam_ros.recording.Recorder`'s."""

    def __init__(self) -> None:
        super().__init__("recorder")
        defaults: dict[str, Any] = {
            "robot": "agibot_g1", "sim": False, "out": "episodes", "auto": False,
            "compression": "none", "min_free_gb": 2.0, "record_observations": False,
        }  # fmt: skip
        p = {k: self.declare_parameter(k, v).value for k, v in defaults.items()}
        self.contract = load_contract(str(p["robot"]))
        self._sim, self._auto = bool(p["sim"]), bool(p["auto"])
        out = Path(str(p["out"])).expanduser().resolve()
        self._contract_text = Path(self.contract.path).read_text(encoding="utf-8")
        self._recorder = Recorder(
            Settings(out, str(p["compression"]), int(float(p["min_free_gb"]) * 1e9)),
            self._episode,
            self.get_logger().error,
        )
        self._instruction = ""
        self._succeeded = False
        self._latched: dict[str, Any] = {}
        self._types: dict[str, str] = {}
        self._rates: dict[str, float] = {}
        self._subscribe(bool(p["record_observations"]))
        self.create_subscription(String, "instruction", self._on_instruction, 10)
        self.create_subscription(
            PolicyState, "policy_state", self._on_policy, _profile(1, latched=True)
        )
        self.create_subscription(SimState, "sim/state", self._on_sim, 10)
        self.create_service(StartEpisode, "start_episode", self._on_start)
        self.create_service(StopEpisode, "stop_episode", self._on_stop)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self.create_timer(0.5, self._publish_status)
        threading.Thread(target=self._repair, args=(out,), daemon=True).start()

    # ---- subscriptions -------------------------------------------------------------------------

    def _subscribe(self, observations: bool) -> None:
        for source in self.contract.inputs:
            self._listen(source.topic, source.type, 30 if isinstance(source, Camera) else 1000)
            if isinstance(source, Camera) and not self._sim:  # a simulation draws at its own rate
                self._rates[source.topic] = source.rate
        for command in self.contract.command_sources:
            self._listen(command.topic, command.type, 1000)
        for name, kind, _ in OWN:
            self._listen(self.resolve_topic_name(name), kind, 100, name in _LATCHED)
        if observations:
            name = self.resolve_topic_name("observation")
            self._listen(name, "wam_ros/msg/Observation", 30)

    def _listen(self, topic: str, kind: str, depth: int, latched: bool = False) -> None:
        if topic in self._types:
            return
        try:
            cls = source_type(kind, self._sim) if kind != "unknown" else source_type("x/Y", True)
            message_type(kind)
        except TypeMissing as err:
            if not self._sim:
                self.get_logger().error(f"{topic} is not recorded: {err}")
                return
            kind = "sensor_msgs/msg/JointState"
        self._types[topic] = kind

        def take(data: bytes, info: Any) -> None:
            log = self._log_time(info)
            if latched:
                self._latched[topic] = (data, info)
            self._recorder.put(
                topic, data, log, info["source_timestamp"], info["publication_sequence_number"]
            )

        self.create_subscription(cls, topic, take, _profile(depth, latched), raw=True)

    def _log_time(self, info: Any) -> int:
        """Arrival in ROS time: the middleware's own stamp, unless the clock is simulated."""
        if self.get_parameter("use_sim_time").value:
            return int(self.get_clock().now().nanoseconds)
        return int(info["received_timestamp"])

    def _topics(self) -> list[Topic]:
        """What is subscribed, with the QoS its publishers offer now."""
        found = []
        for name, kind in self._types.items():
            ends = self.get_publishers_info_by_topic(name)
            profiles = [
                metadata.qos_profile(
                    _RELIABILITY.get(e.qos_profile.reliability, "best_effort"),
                    _DURABILITY.get(e.qos_profile.durability, "volatile"),
                    e.qos_profile.depth or 10,
                )
                for e in ends
            ]
            hashes = {str(e.topic_type_hash) for e in ends}
            found.append(Topic(name, kind, profiles, next(iter(hashes), "")))
        return found

    # ---- episodes ------------------------------------------------------------------------------

    def _episode(self, instruction: str) -> Episode:
        return with_start(
            Episode(self.contract.robot, self._contract_text, instruction, simulated=self._sim)
        )

    def _start(self, instruction: str) -> Path:
        stamped = {s.topic for s in self.contract.cameras}
        folder = self._recorder.start(instruction, self._topics(), self._rates, stamped)
        self._succeeded = False
        now = int(self.get_clock().now().nanoseconds)
        for topic, (data, info) in self._latched.items():
            # A bag that starts later must still know the state that was announced once.
            self._recorder.put(topic, data, now, info["source_timestamp"], None)
        self.get_logger().info(f"recording {folder}")
        return folder

    def _on_start(self, request: Any, response: Any) -> Any:
        try:
            folder = self._start(request.instruction.strip() or self._instruction)
        except RecorderError as err:
            response.success, response.message = False, str(err)
            return response
        response.success, response.path = True, str(folder)
        response.message = f"recording {folder.name}"
        return response

    def _on_stop(self, request: Any, response: Any) -> Any:
        if request.verdict >= len(VERDICTS):
            response.success = False
            response.message = f"verdict {request.verdict} is none of 0, 1, 2"
            return response
        verdict = VERDICTS[request.verdict]
        try:
            folder = self._recorder.stop(verdict, request.note)
        except (RecorderError, OSError) as err:
            response.success, response.message = False, str(err)
            return response
        response.success, response.path = True, str(folder)
        response.message = f"{folder.name}: {verdict}"
        self.get_logger().info(response.message)
        return response

    def _on_instruction(self, message: Any) -> None:
        self._follow(message.data.strip())

    def _on_policy(self, message: Any) -> None:
        # A policy that gives up its instruction ends the episode too.
        if message.instruction != self._instruction:
            self._follow(message.instruction)

    def _follow(self, instruction: str) -> None:
        """With ``auto``, one episode per instruction; in simulation its judge gives the verdict."""
        if instruction == self._instruction:
            return
        self._instruction = instruction
        if not self._auto:
            return
        try:
            if self._recorder.recording:
                judged = "success" if self._succeeded else "failure"
                folder = self._recorder.stop(judged if self._sim else "none")  # type: ignore[arg-type]
                self.get_logger().info(f"finished {folder}")
            if instruction:
                self._start(instruction)
        except (RecorderError, OSError) as err:
            self.get_logger().error(str(err))

    def _on_sim(self, message: Any) -> None:
        self._succeeded = self._succeeded or (
            bool(message.success) and message.task == self._instruction
        )

    # ---- reports -------------------------------------------------------------------------------

    def _repair(self, out: Path) -> None:
        for bag in repair_all(out) if out.is_dir() else ():
            self.get_logger().warning(
                f"repaired {bag.folder.name}: {bag.messages} messages, {bag.seconds:.1f} s, "
                f"{bag.lost_bytes} bytes at its end were of no use"
            )

    def _publish_status(self) -> None:
        s = self._recorder.status()
        doing = f"recording {Path(s.folder).name}" if s.recording else "ready"
        text = "; ".join([doing, *s.warnings])
        values = {
            "recording": str(s.recording).lower(),
            "path": s.folder,
            "seconds": f"{s.seconds:.1f}",
            "messages": str(s.messages),
            "megabytes": f"{s.megabytes:.1f}",
            "lost": str(s.lost),
            "overflow": str(s.overflow),
            "episodes": str(s.episodes),
            "last": s.last,
            "instruction": self._instruction,
            "warnings": "\n".join(s.warnings),
        }
        level = 1 if s.warnings else 0
        self._diagnostics.publish(status(self, "recorder", level, text, values))

    def shut_down(self) -> None:
        """Finish the running episode; its verdict stays open."""
        if self._recorder.recording:
            self._recorder.stop("none", "recorder was shut down")
        for topic, (taken, lost) in self._recorder.loss().items():
            if lost:
                self.get_logger().warning(f"{topic}: {taken} messages recorded, {lost} lost")


def _profile(depth: int, latched: bool = False) -> QoSProfile:
    """Best effort takes what any publisher offers; latched topics are asked for reliably."""
    if latched:
        return QoSProfile(
            depth=depth,
            reliability=ReliabilityPolicy.RELIABLE,
            durability=DurabilityPolicy.TRANSIENT_LOCAL,
        )
    return QoSProfile(
        depth=depth,
        history=HistoryPolicy.KEEP_LAST,
        reliability=ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.VOLATILE,
    )


def main() -> int:
    """Run until interrupted; 2 when the contract cannot be used."""
    os.nice(5)  # control, perception and policy come first
    return run(RecorderNode, "recorder", (ContractError,))


if __name__ == "__main__":
    sys.exit(main())
