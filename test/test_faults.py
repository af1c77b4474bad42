"""Faults with real processes over real DDS: nothing leaves the limits, recovery is as promised.

A stand-in robot in the test's own process speaks the hardware side of the contract: it follows
commands, and can be blocked, frozen or made to jump. It keeps every command it was sent.
"""

from __future__ import annotations

import os
import signal
import time
from array import array
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2")
from rclpy.qos import QoSProfile, qos_profile_sensor_data  # noqa: E402
from sensor_msgs.msg import JointState  # noqa: E402
from std_msgs.msg import Bool, Empty  # noqa: E402
from std_srvs.srv import SetBool, Trigger  # noqa: E402

from wam_ros.contract import load_contract  # noqa: E402
from wam_ros.contract.data import ActionChunk  # noqa: E402

ActionChunkMsg = pytest.importorskip("wam_ros.msg", reason="needs the messages").ActionChunk
from wam_ros.msg import ExecutorState  # noqa: E402

from wam_ros.nodes.convert import chunk_to_msg  # noqa: E402
from wam_ros.nodes.executor_node import LATCHED  # noqa: E402

G1 = load_contract("agibot_g1")
ARMS = [n for n in G1.control_names if G1.group_of(n).role == "arm"]
COLUMNS = [G1.action_names.index(n) for n in ARMS]
HOME = np.array([G1.joints[n].home for n in G1.action_names])
LIMITS = [G1.joints[n].limits for n in ARMS]


class Robot:
    """The other side of the executor: joint states at 50 Hz, a policy, and a memory."""

    def __init__(self) -> None:
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
        self.beat = self.node.create_publisher(Empty, "/wam/heartbeat", 1)
        self.node.create_subscription(
            JointState, "/wbc/arm_command", self._on_command, QoSProfile(depth=100)
        )
        self.node.create_subscription(ExecutorState, "/wam/executor_state", self._on_state, LATCHED)
        self.position = dict(zip(G1.action_names, HOME, strict=True))
        self.commands: list[tuple[float, np.ndarray]] = []
        self.state: Any = None
        self.modes: list[str] = []
        self.sequence = 0
        self.publish_states = self.frozen = self.beating = True
        self.frozen = False
        self.blocked: dict[str, float] = {}
        self.policy: Callable[[], ActionChunk | None] = lambda: None
        self.begin = time.time()
        self._next_state = self._next_chunk = time.monotonic()

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

    def wave(self, size: float = 0.15) -> ActionChunk:
        """24 rows from now on of a slow wave of both arms."""
        t0 = time.time()
        t = t0 - self.begin + np.arange(24) / 30
        rows = np.tile(HOME, (24, 1))
        rows[:, COLUMNS] += size * (1 - np.cos(1.5 * t))[:, None]
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
                    publisher.publish(
                        JointState(name=list(source.joints), position=array("d", raw))
                    )
            if self.beating:
                self.beat.publish(Empty())
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
            assert np.all(np.abs(np.diff(p[:, i])) <= limit.velocity * 0.002 * ticks + 1e-6)

    def close(self) -> None:
        self.context_executor.shutdown()
        self.node.destroy_node()
        rclpy.try_shutdown()


@pytest.fixture
def bench(node_process) -> Iterator[tuple[Robot, Callable[..., Any]]]:
    """A stand-in robot and ``start(*parameters)`` for a real executor node, armed on request."""
    robot = Robot()

    def start(*parameters: str, armed: bool = True) -> Any:
        given = ["-r", "__ns:=/wam", "-p", "robot:=agibot_g1", "-p", "sim:=true"]
        given += ["-p", f"armed:={str(armed).lower()}", *parameters]
        process = node_process("wam_ros.nodes.executor_node", *given)
        if armed:
            robot.until(robot.mode("holding"))
        return process

    yield robot, start
    robot.close()


def test_killed_policy_is_survived_and_a_new_one_taken_up(bench) -> None:
    robot, start = bench
    start()
    robot.policy = robot.wave
    robot.until(robot.mode("tracking"))
    robot.run(0.7)
    robot.policy = lambda: None
    robot.until(robot.mode("holding"), 5)
    robot.sequence = 0  # a restarted policy counts from the beginning
    robot.policy = robot.wave
    robot.until(robot.mode("tracking"), 5)
    robot.assert_inside()


def test_stopped_perception_means_stale_states_and_recovery_is_automatic(bench) -> None:
    robot, start = bench
    start()
    robot.policy = robot.wave
    robot.until(robot.mode("tracking"))
    robot.publish_states = False
    robot.until(lambda: robot.state.mode_name == "holding" and "stale" in robot.state.reason, 5)
    robot.publish_states = True
    robot.until(robot.mode("tracking"), 5)
    robot.assert_inside()


def test_executor_killed_comes_back_disarmed(bench) -> None:
    robot, start = bench
    first = start()
    robot.policy = robot.wave
    robot.until(robot.mode("tracking"))
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    robot.state = None
    robot.commands.clear()
    start(armed=False)
    robot.until(robot.mode("disarmed"))
    robot.run(0.5)
    assert robot.commands == []
    answer = robot.call(SetBool, "/wam/arm", SetBool.Request(data=True))
    assert answer.success, answer.message
    robot.until(robot.mode("tracking"), 5)
    robot.assert_inside()


def test_executor_stopped_by_a_signal_goes_on_without_a_leap(bench) -> None:
    robot, start = bench
    process = start()
    robot.policy = robot.wave
    robot.until(robot.mode("tracking"))
    os.kill(process.pid, signal.SIGSTOP)
    robot.run(1.0)
    os.kill(process.pid, signal.SIGCONT)
    robot.run(0.3)
    robot.until(robot.mode("tracking"), 5)
    assert "holding" in robot.modes or "stopping" in robot.modes
    robot.assert_inside()


def test_flood_of_chunks_at_a_kilohertz(bench) -> None:
    robot, start = bench
    start()
    made = chunk_to_msg(robot.wave(), "agibot_g1")
    end, sent = time.monotonic() + 2.0, 0
    while time.monotonic() < end:
        if sent % 20 == 0:
            made = chunk_to_msg(robot.wave(), "agibot_g1")
        robot.chunks.publish(made)
        robot.step()
        sent += 1
    robot.run(0.2)
    assert sent > 300
    assert robot.state.chunks_accepted <= 2.5 / 0.02
    robot.until(robot.mode("holding"), 5)
    robot.assert_inside()


def test_malformed_chunks_through_the_node(bench) -> None:
    robot, start = bench
    start()
    rng = np.random.default_rng(7)
    for k in range(2000):
        msg = chunk_to_msg(robot.wave(0.0), "agibot_g1")
        kind = k % 7
        if kind == 0:
            msg.actions[int(rng.integers(len(msg.actions)))] = float("nan")
            msg.actions = array("d", [float("nan")] * 24 * 22)
        elif kind == 1:
            msg.actions = msg.actions[: int(rng.integers(len(msg.actions)))]
        elif kind == 2:
            msg.names = msg.names[: int(rng.integers(22))]
        elif kind == 3:
            msg.horizon = int(rng.integers(2**31))
        elif kind == 4:
            msg.step_period = float(rng.choice([0.0, -1.0, np.inf, np.nan]))
        elif kind == 5:
            msg.kinds = [9] * len(msg.names)
        else:
            msg.header.stamp.sec = int(rng.integers(2**31 - 1))
        robot.chunks.publish(msg)
        robot.step()
    robot.run(0.3)
    assert robot.state.mode_name == "holding"
    assert robot.state.chunks_accepted == 0 and robot.state.chunks_rejected > 0
    robot.policy = robot.wave
    robot.until(robot.mode("tracking"), 5)
    robot.assert_inside()


def test_frozen_joint_states_end_disarmed(bench) -> None:
    robot, start = bench
    start()
    robot.frozen = True
    robot.policy = lambda: robot.wave(0.4)
    robot.until(robot.mode("disarmed"), 15)
    assert "following error" in robot.state.reason
    robot.assert_inside()


def test_jumping_joint_states_disarm_at_once(bench) -> None:
    robot, start = bench
    start()
    robot.policy = robot.wave
    robot.until(robot.mode("tracking"))
    robot.frozen = True
    robot.position[ARMS[1]] -= 1.2
    robot.until(robot.mode("disarmed"), 5)
    assert f"{ARMS[1]} jumped" in robot.state.reason
    answer = robot.call(SetBool, "/wam/arm", SetBool.Request(data=True))
    assert not answer.success  # the new reading has to prove itself
    robot.assert_inside()


def test_blocked_arm_the_reference_does_not_run_away_and_gives_way(bench) -> None:
    robot, start = bench
    start()
    joint = ARMS[0]
    stuck = robot.position[joint] + 0.1
    robot.blocked[joint] = stuck
    robot.policy = lambda: robot.wave(0.4)
    robot.until(robot.mode("disarmed"), 15)
    assert joint in robot.state.reason and "in its way" in robot.state.reason
    sent = np.array([c for _, c in robot.commands])[:, 0]
    assert sent.max() < stuck + LIMITS[0].following_error + 0.02
    assert abs(sent[-1] - stuck) < 0.02  # given way before it was let go
    robot.assert_inside()


def test_estop_topic_and_service_latch_until_reset(bench) -> None:
    robot, start = bench
    start()
    robot.policy = robot.wave
    robot.until(robot.mode("tracking"))
    robot.estop.publish(Bool(data=True))
    robot.until(robot.mode("estopped"), 5)
    robot.run(0.5)
    assert robot.state.mode_name == "estopped"
    assert not robot.call(SetBool, "/wam/arm", SetBool.Request(data=True)).success
    robot.call(Trigger, "/wam/reset", Trigger.Request())
    assert robot.call(SetBool, "/wam/arm", SetBool.Request(data=True)).success
    robot.until(robot.mode("tracking"), 5)
    robot.call(Trigger, "/wam/estop", Trigger.Request())
    robot.until(robot.mode("estopped"), 5)
    robot.assert_inside()


def test_lost_heartbeat_stops_and_disarms(bench) -> None:
    robot, start = bench
    start("-p", "deadman:=0.3")
    robot.policy = robot.wave
    robot.until(robot.mode("tracking"))
    robot.beating = False
    robot.until(robot.mode("disarmed"), 5)
    assert "no heartbeat" in robot.state.reason
    robot.assert_inside()


def test_no_subscriber_is_no_trouble(bench) -> None:
    robot, start = bench
    for subscription in list(robot.node.subscriptions):
        if subscription.topic_name == "/wbc/arm_command":
            robot.node.destroy_subscription(subscription)
    start()
    robot.policy = lambda: robot.wave(0.05)
    robot.until(robot.mode("tracking"))
    robot.run(1.0)
    assert robot.state.mode_name == "tracking" and robot.state.ticks > 100


def test_simulated_time_that_jumps_back_holds_and_goes_on(bench) -> None:
    from rosgraph_msgs.msg import Clock

    robot, start = bench
    clock = robot.node.create_publisher(Clock, "/clock", 1)
    offset = 0.0

    def turn() -> None:
        now = time.time() + offset
        msg = Clock()
        msg.clock.sec, msg.clock.nanosec = int(now), int(now % 1 * 1e9)
        clock.publish(msg)

    plain = robot.step

    def step() -> None:
        turn()
        plain()

    robot.step = step  # type: ignore[method-assign]
    start("-p", "use_sim_time:=true")
    wave = robot.wave

    def policy() -> ActionChunk:
        from dataclasses import replace

        chunk = wave()
        return replace(chunk, t0=chunk.t0 + offset)

    robot.policy = policy
    robot.until(robot.mode("tracking"), 10)
    robot.run(0.5)
    robot.modes.clear()
    offset = -100.0
    robot.until(robot.mode("stopping", "holding"), 5)
    robot.until(robot.mode("tracking"), 10)
    p = np.array([c for _, c in robot.commands])
    assert np.abs(np.diff(p, axis=0)).max() < 0.1


@pytest.mark.slow
def test_soak_random_faults(bench) -> None:
    """WAM_SOAK seconds (600) of random faults; limits hold and the arm tracks again each time."""
    robot, start = bench
    process = start()
    seconds = float(os.environ.get("WAM_SOAK", "600"))
    rng = np.random.default_rng(int(os.environ.get("WAM_SOAK_SEED", "1")))
    robot.policy = robot.wave
    end, done = time.monotonic() + seconds, {}

    def rearm() -> None:
        robot.until(robot.mode("disarmed", "estopped"), 20)
        robot.call(Trigger, "/wam/reset", Trigger.Request())
        # After a jump the readings must have been steady for half a second.
        last = time.monotonic() + 20
        while not robot.call(SetBool, "/wam/arm", SetBool.Request(data=True)).success:
            assert time.monotonic() < last, robot.state
            robot.run(0.2)

    while time.monotonic() < end:
        robot.until(robot.mode("tracking"), 20)
        robot.run(rng.uniform(0.2, 1.5))
        fault = str(
            rng.choice(["policy", "states", "stop", "flood", "garbage", "block", "jump", "estop"])
        )
        done[fault] = done.get(fault, 0) + 1
        if fault == "policy":
            robot.policy = lambda: None
            robot.run(rng.uniform(0.1, 2.0))
            robot.policy = robot.wave
        elif fault == "states":
            robot.publish_states = False
            robot.run(rng.uniform(0.1, 1.0))
            robot.publish_states = True
        elif fault == "stop":
            os.kill(process.pid, signal.SIGSTOP)
            robot.run(rng.uniform(0.05, 1.0))
            os.kill(process.pid, signal.SIGCONT)
        elif fault == "flood":
            for _ in range(500):
                robot.send(robot.wave())
        elif fault == "garbage":
            for _ in range(100):
                msg = chunk_to_msg(robot.wave(), "agibot_g1")
                msg.actions = array("d", rng.normal(0, 1e3, 24 * 22))
                robot.chunks.publish(msg)
                robot.step()
        elif fault == "block":
            robot.blocked = {n: robot.position[n] for n in ARMS[:3]}
            robot.policy = lambda: robot.wave(0.6)
            robot.until(robot.mode("disarmed"), 20)
            robot.blocked, robot.policy = {}, robot.wave
            rearm()
        elif fault == "jump":
            name, robot.frozen = ARMS[int(rng.integers(14))], True
            before = dict(robot.position)
            robot.position[name] += float(rng.choice([-1.5, 1.5]))
            robot.until(robot.mode("disarmed"), 20)
            robot.position, robot.frozen = before, False
            rearm()
        elif fault == "estop":
            robot.estop.publish(Bool(data=True))
            robot.until(robot.mode("estopped"), 20)
            rearm()
        try:
            robot.assert_inside()
        except AssertionError:
            print(f"after {fault}: {robot.modes[-8:]}, {robot.state.reason}, {done}")
            raise
        robot.commands = robot.commands[-2:]
    print(f"faults survived in {seconds:.0f} s: {done}")
    assert sum(done.values()) > seconds / 20
