"""A stand-in robot for tests with real nodes: it speaks the hardware side of the contract.

It follows commands, can be blocked, frozen or made to jump, and keeps every command it was sent.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import rclpy
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Bool, Empty, String
from std_srvs.srv import SetBool
from wam_ros.msg import ActionChunk as ActionChunkMsg
from wam_ros.msg import ExecutorState

from wam_ros.contract import load_contract
from wam_ros.contract.data import ActionChunk
from wam_ros.nodes.convert import chunk_to_msg, image_msg
from wam_ros.nodes.qos import LATCHED

G1 = load_contract("agibot_g1")
ARMS = [n for n in G1.control_names if G1.group_of(n).role == "arm"]
COLUMNS = [G1.action_names.index(n) for n in ARMS]
HOME = np.array([G1.joints[n].home for n in G1.action_names])
LIMITS = [G1.joints[n].limits for n in ARMS]


class Robot:
    """The other side of the executor: joint states at 50 Hz, a policy, and a memory.

    ``filming`` publishes grey pictures of every camera at 15 Hz, for a real perception node.
    """

    def __init__(self) -> None:
        with pytest.MonkeyPatch.context() as patch:
            # As the executor does: peers are killed here, and may leave locks in shared memory.
            patch.setenv("FASTDDS_BUILTIN_TRANSPORTS", "UDPv4")
            rclpy.init()
            self.node = rclpy.create_node("stand_in")
        self.context_executor = rclpy.executors.SingleThreadedExecutor()
        self.context_executor.add_node(self.node)
        self.sources = [
            (s, self.node.create_publisher(JointState, s.topic, qos_profile_sensor_data))
            for s in G1.sources
        ]
        self.chunks = self.node.create_publisher(ActionChunkMsg, "/wam/action_chunk", 1)
        self.estop = self.node.create_publisher(Bool, "/wam/estop", LATCHED)
        self.instruction = self.node.create_publisher(String, "/wam/instruction", 1)
        self.cameras = [
            (c.name, self.node.create_publisher(Image, c.topic, qos_profile_sensor_data))
            for c in G1.cameras
        ]
        self.filming = False
        self.beat = self.node.create_publisher(Empty, "/wam/heartbeat", 1)
        self.node.create_subscription(
            JointState, "/wbc/arm_command", self._on_command, QoSProfile(depth=100)
        )
        every = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.node.create_subscription(ExecutorState, "/wam/executor_state", self._on_state, every)
        self.position = dict(zip(G1.action_names, HOME, strict=True))
        self.commands: list[tuple[float, np.ndarray]] = []
        self.state: Any = None
        self.modes: list[str] = []
        self.reasons: list[str] = []
        self.sequence = 0
        self.publish_states = self.frozen = self.beating = True
        self.frozen = False
        self.blocked: dict[str, float] = {}
        self.policy: Callable[[], ActionChunk | None] = lambda: None
        self.begin = time.time()
        self._next_state = self._next_chunk = self._next_picture = time.monotonic()

    def _on_command(self, message: Any) -> None:
        stamp = message.header.stamp.sec + 1e-9 * message.header.stamp.nanosec
        self.commands.append((stamp, np.array(message.position)))
        if not self.frozen:
            for name, value in zip(message.name, message.position, strict=True):
                self.position[name] = min(value, self.blocked.get(name, np.inf))

    def _on_state(self, message: Any) -> None:
        self.state = message
        if not self.modes or self.modes[-1] != message.mode_name:
            self.modes.append(message.mode_name)
            self.reasons.append(message.reason)

    def wave(self, size: float = 0.15, columns: list[int] = COLUMNS) -> ActionChunk:
        """24 rows from now on of a slow wave of both arms, or of some columns."""
        t0 = time.time()
        t = t0 - self.begin + np.arange(24) / 30
        rows = np.tile(HOME, (24, 1))
        rows[:, columns] += size * (1 - np.cos(1.5 * t))[:, None]
        self.sequence += 1
        return ActionChunk(
            t0, 1 / 30, rows, G1.action_names, G1.action_kinds, self.sequence, cadence="sliding"
        )

    def send(self, chunk: ActionChunk) -> None:
        self.chunks.publish(chunk_to_msg(chunk, "agibot_g1"))

    def step(self) -> None:
        """One turn of the stand-in's loop."""
        now = time.monotonic()
        if now >= self._next_state:
            self._next_state = now + 0.02
            if self.publish_states:
                for source, publisher in self.sources:
                    raw = [(self.position[j] - source.offset) / source.scale for j in source.joints]
                    message = JointState(name=list(source.joints), position=array("d", raw))
                    message.header.stamp = self.node.get_clock().now().to_msg()
                    publisher.publish(message)
            if self.beating:
                self.beat.publish(Empty())
        if self.filming and now >= self._next_picture:
            self._next_picture = now + 1 / 15
            stamp = self.node.get_clock().now().to_msg()
            for name, publisher in self.cameras:
                publisher.publish(image_msg(np.full((48, 64, 3), 90, np.uint8), stamp, name))
        if now >= self._next_chunk:
            self._next_chunk = now + 0.15
            chunk = self.policy()
            if chunk is not None:
                self.send(chunk)
        self.context_executor.spin_once(timeout_sec=0.002)

    def run(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.step()

    def until(self, done: Callable[[], bool], seconds: float = 20.0) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.step()
            if self.state is not None and done():
                return
        pytest.fail(f"not reached in {seconds} s; executor: {self.state}")

    def mode(self, *names: str) -> Callable[[], bool]:
        return lambda: self.state.mode_name in names

    def call(self, kind: Any, name: str, request: Any) -> Any:
        client = self.node.create_client(kind, name)
        self.until(client.service_is_ready)
        future = client.call_async(request)
        self.until(future.done)
        return future.result()

    def arm(self, seconds: float = 5.0) -> None:
        """Arm; asked again while the arm has to be seen at rest, as after a stall of this machine.

        Fails with the executor's reason if that is another one.
        """
        end = time.monotonic() + seconds
        while True:
            answer = self.call(SetBool, "/wam/arm", SetBool.Request(data=True))
            passing = ("wait a moment", "still", "stale")
            if answer.success or time.monotonic() > end:
                break
            assert any(p in answer.message for p in passing), answer.message
            self.run(0.1)
        assert answer.success, answer.message

    def assert_inside(self) -> None:
        """Every command within range and speed; the robot sees one in five ticks."""
        if len(self.commands) < 2:
            return
        p = np.array([c for _, c in self.commands])
        t = np.array([s for s, _ in self.commands])
        assert np.isfinite(p).all()
        for i, limit in enumerate(LIMITS):
            assert p[:, i].min() >= limit.lower and p[:, i].max() <= limit.upper
            # Between two commands the reference moved by ticks; a wake-up may be late by one.
            ticks = np.maximum(np.round(np.diff(t) / 0.002), 5) + 2
            beyond = np.abs(np.diff(p[:, i])) > limit.velocity * 0.002 * ticks + 1e-6
            if beyond.any():
                k = int(np.argmax(beyond))
                near = slice(max(0, k - 4), k + 6)
                pytest.fail(
                    f"joint {i} went {p[k + 1, i] - p[k, i]:.4f} in {t[k + 1] - t[k]:.4f} s "
                    f"(command {k} of {len(t)}): {p[near, i]} at {t[near] - t[k]}"
                )

    def close(self) -> None:
        self.context_executor.shutdown()
        self.node.destroy_node()
        rclpy.try_shutdown()
