"""Bags with known content: sinusoidal joints, cameras whose grey value tells the frame number."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from wam_ros.contract import Contract, load_contract
from wam_ros.recording import metadata
from wam_ros.recording.bag import BagWriter
from wam_ros.recording.episode import Episode
from wam_ros.recording.metadata import Topic

START = 1_700_000_000.0
LEAD = 0.05
"""Commands run this many seconds ahead of the joints."""


def grey(camera: int, frame: int) -> int:
    """Level of a picture; neighbours differ by more than H.264 loses."""
    return 20 + (frame * 11 + camera * 60) % 210


def joint(contract: Contract, name: str, t: float) -> float:
    """Position of a joint, well inside its limits."""
    limits = contract.joints[name].limits
    middle, half = (limits.lower + limits.upper) / 2, (limits.upper - limits.lower) / 2
    index = list(contract.joints).index(name)
    return middle + 0.3 * half * math.sin(1.3 * (t - START) + 0.5 * index)


@dataclass
class Scene:
    """What to record. Hooks change a sample: they get its name and its time since start, in s.

    ``keep`` drops samples, ``shift`` moves their stamp, ``delay`` their arrival; ``say`` lists
    ``(time, instruction)``; ``armed`` tells whether an executor says it is armed.
    """

    robot: str = "yam"
    seconds: float = 3.0
    camera_rate: float = 30.0
    state_rate: float = 100.0
    size: tuple[int, int] = (64, 48)
    instruction: str = "fold the towel"
    verdict: Any = "success"
    armed: bool | None = True
    commands: bool = True
    keep: Callable[[str, float], bool] = lambda name, t: True
    shift: Callable[[str, float], float] = lambda name, t: 0.0
    delay: Callable[[str, float], float] = lambda name, t: 0.0
    say: list[tuple[float, str]] = field(default_factory=list)
    extra: list[tuple[str, str, float, Any]] = field(default_factory=list)
    """Further messages: topic, type, time since start, message."""
    contract_path: str = ""
    motion: Callable[[Contract, str, float], float] = joint

    @property
    def contract(self) -> Contract:
        return load_contract(self.contract_path or self.robot)

    def messages(self) -> list[tuple[float, str, str, Any]]:
        """(arrival, topic, type, message), in order of arrival."""
        from rclpy.serialization import serialize_message
        from std_msgs.msg import String
        from wam_ros.msg import ExecutorState

        from wam_ros.nodes.convert import image_msg, to_stamp

        c = self.contract
        out: list[tuple[float, str, str, Any]] = []

        def add(name: str, topic: str, kind: str, t: float, make: Callable[[float], Any]) -> None:
            if self.keep(name, t):
                stamp = START + t + self.shift(name, t)
                out.append((START + t + 0.003 + self.delay(name, t), topic, kind, make(stamp)))

        w, h = self.size
        for k in range(round(self.seconds * self.camera_rate)):
            for i, camera in enumerate(c.cameras):
                picture = np.full((h, w, 3), grey(i, k), np.uint8)
                add(
                    camera.name, camera.topic, camera.type, k / self.camera_rate,
                    lambda s, p=picture, n=camera.name: image_msg(p, to_stamp(s), n),
                )  # fmt: skip
        kind = "sensor_msgs/msg/JointState"
        for k in range(round(self.seconds * self.state_rate)):
            t = k / self.state_rate
            for source in c.sources:
                add(source.name, source.topic, kind, t, lambda s, o=source: self._state(o, s))
            for output in c.outputs if self.commands else ():
                if output.enabled:
                    known = output.type if output.type != "unknown" else kind
                    add(
                        f"command:{output.name}", output.topic, known, t,
                        lambda s, o=output: self._command(o, s),
                    )  # fmt: skip
            if self.armed is not None and k % 10 == 0:
                add(
                    "executor", "/wam/executor_state", "wam_ros/msg/ExecutorState", t,
                    lambda s: ExecutorState(armed=self.armed),
                )  # fmt: skip
        for t, text in self.say:
            out.append((START + t, "/wam/instruction", "std_msgs/msg/String", String(data=text)))
        for topic, type_name, t, message in self.extra:
            out.append((START + t, topic, type_name, message))
        out.sort(key=lambda m: m[0])
        return [(t, topic, k, serialize_message(m)) for t, topic, k, m in out]

    def _state(self, source: Any, stamp: float) -> Any:
        from sensor_msgs.msg import JointState

        from wam_ros.nodes.convert import to_stamp

        raw = [(self.motion(self.contract_, j, stamp) - source.offset) / source.scale
               for j in source.joints]  # fmt: skip
        message = JointState(name=list(source.joints), position=array("d", raw))
        message.header.stamp = to_stamp(stamp)
        return message

    def _command(self, output: Any, stamp: float) -> Any:
        from sensor_msgs.msg import JointState
        from std_msgs.msg import Float64MultiArray
        from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

        from wam_ros.nodes.convert import to_stamp

        raw = [
            output.scale * self.motion(self.contract_, j, stamp + LEAD) + output.offset
            for j in output.joints
        ]
        if output.type == "trajectory_msgs/msg/JointTrajectory":
            point = JointTrajectoryPoint(positions=raw)
            return JointTrajectory(joint_names=list(output.joints), points=[point])
        if output.type == "std_msgs/msg/Float64MultiArray":
            return Float64MultiArray(data=raw)
        message = JointState(name=list(output.joints), position=array("d", raw))
        message.header.stamp = to_stamp(stamp)
        return message

    @property
    def contract_(self) -> Contract:
        if not hasattr(self, "_contract"):
            self._contract = self.contract
        return self._contract

    def write(self, folder: Path) -> Path:
        """Record the scene into ``folder`` with the recorder's own writer."""
        text = Path(self.contract_.path).read_text()
        episode = Episode(self.contract_.robot, text, self.instruction, simulated=True)
        bag = BagWriter(folder, episode)
        known: set[str] = set()
        for arrival, topic, kind, data in self.messages():
            if topic not in known:
                known.add(topic)
                qos = [metadata.qos_profile("best_effort", "volatile", 5)]
                bag.add_topic(Topic(topic, kind, qos))
            ns = round(arrival * 1e9)
            bag.write(topic, data, ns, ns, 0)
        return bag.close(self.verdict)
