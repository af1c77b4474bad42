"""Record episodes: raw subscriptions to everything the contract names, and our own topics."""

from __future__ import annotations

import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from std_msgs.msg import String

from wam_ros.contract import ContractError, load_contract
from wam_ros.contract.model import Camera
from wam_ros.msg import PolicyState, SimState
from wam_ros.nodes.diagnostics import status
from wam_ros.nodes.inbox import Inbox, profile
from wam_ros.nodes.lifecycle import run
from wam_ros.nodes.mailbox import Mailbox, Unspun
from wam_ros.nodes.parameters import declare
from wam_ros.nodes.scheduling import behave_as_batch
from wam_ros.nodes.topics import OWN
from wam_ros.nodes.types import TypeMissing, message_type, source_type
from wam_ros.nodes.words import nanoseconds
from wam_ros.recording import metadata
from wam_ros.recording.definitions import type_hash
from wam_ros.recording.episode import VERDICTS, Episode
from wam_ros.recording.metadata import Topic
from wam_ros.recording.recorder import Arrival, Recorder, RecorderError, Settings, with_start
from wam_ros.recording.repair import repair_all
from wam_ros.srv import StartEpisode, StopEpisode

# Messages that may wait in the middleware: some seconds of either kind.
_PICTURES, _ROWS = 120, 5000
_ECHO = 3.0
"""Seconds a policy may take to repeat a new instruction in its state."""
_LATCHED = ("executor_state", "policy_state")
_LAST_WORD = 0.5
"""Seconds in which a simulation, which speaks at 10 Hz, tells its verdict on what has ended."""
_VERDICTS = QoSProfile(depth=20, reliability=ReliabilityPolicy.RELIABLE)
_RELIABILITY = {ReliabilityPolicy.RELIABLE: "reliable"}
_DURABILITY = {DurabilityPolicy.TRANSIENT_LOCAL: "transient_local"}


class RecorderNode(Node):  # type: ignore[misc]
    """Owns the subscriptions and the services; the work is `wam_ros.recording.Recorder`'s."""

    def __init__(self) -> None:
        super().__init__("recorder")
        defaults: dict[str, Any] = {
            "robot": "agibot_g1", "sim": False, "out": "episodes", "auto": False,
            "compression": "none", "min_free_gb": 2.0, "record_observations": False,
            "nice": 0,
        }  # fmt: skip
        p = declare(self, defaults)
        self.contract = load_contract(str(p["robot"]))
        self._sim, self._auto = bool(p["sim"]), bool(p["auto"])
        out = Path(str(p["out"])).expanduser().resolve()
        self._contract_text = Path(self.contract.path).read_text(encoding="utf-8")
        self._recorder = Recorder(
            Settings(out, str(p["compression"]), int(float(p["min_free_gb"]) * 1e9)),
            self._episode,
            self.get_logger().error,
            partial(behave_as_batch, int(p["nice"])),
        )
        self._instruction = ""
        self._said_at, self._echo_by = 0, 0.0
        self._succeeded = False
        self._latched: dict[str, Arrival] = {}
        self._latched_topics = {self.resolve_topic_name(name) for name in _LATCHED}
        self._inbox = Inbox(self, self._take, int(p["nice"]))
        self._types: dict[str, str] = {}
        self._rates: dict[str, float] = {}
        self._shown: list[str] = []
        self._subscribe(bool(p["record_observations"]))
        self.create_subscription(String, "instruction", self._on_instruction, 10)
        self.create_subscription(
            PolicyState, "policy_state", self._on_policy, profile(1, latched=True)
        )
        # Read when an instruction ends: its success was published a moment before, and must not
        # wait in a queue behind the end.
        self._judge = Mailbox(self, Unspun(), SimState, "sim/state", _VERDICTS)
        self.create_timer(0.5, self._read_judge)
        self.create_service(StartEpisode, "start_episode", self._on_start)
        self.create_service(StopEpisode, "stop_episode", self._on_stop)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self.create_timer(0.5, self._publish_status)
        self._inbox.start()
        threading.Thread(target=self._repair, args=(out,), daemon=True).start()

    # ---- subscriptions -------------------------------------------------------------------------

    def _subscribe(self, observations: bool) -> None:
        for source in self.contract.inputs:
            camera = isinstance(source, Camera)
            self._listen(source.topic, source.type, _PICTURES if camera else _ROWS)
            if isinstance(source, Camera) and not self._sim:  # a simulation draws at its own rate
                self._rates[source.topic] = source.rate
        for command in self.contract.command_sources:
            self._listen(command.topic, command.type, _ROWS)
        self._shown = list(self._types)
        for name, kind, _ in OWN:
            self._listen(self.resolve_topic_name(name), kind, 100, name in _LATCHED)
        if observations:
            name = self.resolve_topic_name("observation")
            self._listen(name, "wam_ros/msg/Observation", _PICTURES)

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

        self._inbox.add(cls, topic, depth, latched)

    def _take(self, arrivals: list[Arrival]) -> None:
        for arrival in arrivals:
            if arrival.topic in self._latched_topics:
                self._latched[arrival.topic] = arrival
        self._recorder.put(arrivals)

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
            # A publisher that was found a moment ago may not have told its hash yet.
            told = {str(e.topic_type_hash) for e in ends}
            hashes = sorted(h for h in told if h.startswith("RIHS"))
            found.append(Topic(name, kind, profiles, hashes[0] if hashes else type_hash(kind)))
        return found

    # ---- episodes ------------------------------------------------------------------------------

    def _episode(self, instruction: str) -> Episode:
        return with_start(
            Episode(self.contract.robot, self._contract_text, instruction, simulated=self._sim)
        )

    def _start(self, instruction: str) -> Path:
        stamped = {s.topic for s in self.contract.cameras}
        topics = self._topics()
        self._inbox.empty()  # what came before belongs to no episode
        folder = self._recorder.start(instruction, topics, self._rates, stamped)
        self._succeeded = False
        now = int(self.get_clock().now().nanoseconds)
        # A bag that starts later must still know the state that was announced once.
        again = [a._replace(log_ns=now, sequence=None) for a in self._latched.values()]
        self._recorder.put(again)
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
        self._publish_status()
        return response

    def _on_stop(self, request: Any, response: Any) -> Any:
        if request.verdict >= len(VERDICTS):
            response.success = False
            response.message = f"verdict {request.verdict} is none of 0, 1, 2"
            return response
        verdict = VERDICTS[request.verdict]
        try:
            self._inbox.empty()
            folder = self._recorder.stop(verdict, request.note)
        except (RecorderError, OSError) as err:
            response.success, response.message = False, str(err)
            return response
        response.success, response.path = True, str(folder)
        response.message = f"{folder.name}: {verdict}"
        self.get_logger().info(response.message)
        self._publish_status()
        return response

    def _on_instruction(self, message: Any, info: dict[str, int]) -> None:
        text = message.data.strip()
        self._said_at, self._echo_by = info["source_timestamp"], time.monotonic() + _ECHO
        self._follow(text)

    def _on_policy(self, message: Any) -> None:
        """A policy that gives up its instruction ends the episode, too."""
        if message.instruction == self._instruction:
            self._echo_by = 0.0
            return
        # A state from before the policy heard would cut the new episode in two. One that was never
        # told anything has no stamp to tell by.
        said_at = nanoseconds(message.instruction_stamp)
        stale = said_at < self._said_at if said_at else time.monotonic() < self._echo_by
        if not stale:
            self._follow(message.instruction)

    def _follow(self, instruction: str) -> None:
        """With ``auto``, one episode per instruction; in simulation its judge gives the verdict."""
        if instruction == self._instruction:
            return
        if self._auto and self._sim and self._recorder.recording:
            self._await_verdict()
        self._read_judge()
        self._instruction = instruction
        if not self._auto:
            return
        try:
            if self._recorder.recording:
                self._inbox.empty()
                judged = "success" if self._succeeded else "failure"
                folder = self._recorder.stop(judged if self._sim else "none")  # type: ignore[arg-type]
                self.get_logger().info(f"finished {folder}")
            if instruction:
                self._start(instruction)
        except (RecorderError, OSError) as err:
            self.get_logger().error(str(err))

    def _await_verdict(self) -> None:
        """Read on until the judge speaks of something else, or succeeded.

        Of two topics nobody promises an order: its last word on this may be on its way.
        """
        end = time.monotonic() + _LAST_WORD
        while not self._read_judge() and not self._succeeded and time.monotonic() < end:
            time.sleep(0.01)

    def _read_judge(self) -> bool:
        """Note a success; whether the judge has turned to something else."""
        elsewhere = False
        for message in self._judge.take_all():
            elsewhere = message.task != self._instruction
            self._succeeded = self._succeeded or (bool(message.success) and not elsewhere)
        return elsewhere

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
        for topic in self._shown:
            wanted = f" of {self._rates[topic]:g}" if topic in self._rates else ""
            values[f"Hz {topic}"] = f"{s.rates.get(topic, 0.0):.1f}{wanted}"
        level = 1 if s.warnings else 0
        self._diagnostics.publish(status(self, "recorder", level, text, values))

    def shut_down(self) -> None:
        """Finish the running episode; its verdict stays open."""
        self._inbox.stop()
        if self._recorder.recording:
            self._recorder.stop("none", "recorder was shut down")
        for topic, (taken, lost) in self._recorder.loss().items():
            if lost:
                self.get_logger().warning(f"{topic}: {taken} messages recorded, {lost} lost")


def main() -> int:
    """Run until interrupted; 2 when the contract cannot be used."""
    return run(RecorderNode, "recorder", (ContractError, ValueError))


if __name__ == "__main__":
    sys.exit(main())
