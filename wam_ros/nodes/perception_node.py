"""Aggregate cameras and joint states into Observation messages at the action rate."""

from __future__ import annotations

import signal
import sys
import threading
from typing import Any

from wam_ros import dds

dds.use_profile()  # observations carry images; must precede rclpy

import rclpy  # noqa: E402
from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.node import Node  # noqa: E402
from rclpy.qos import qos_profile_sensor_data  # noqa: E402

from wam_ros.contract import ContractError, load_contract  # noqa: E402
from wam_ros.msg import Observation as ObservationMsg  # noqa: E402
from wam_ros.nodes.convert import observation_to_msg, to_seconds  # noqa: E402
from wam_ros.nodes.diagnostics import status  # noqa: E402
from wam_ros.nodes.sources import subscribe_states  # noqa: E402
from wam_ros.nodes.types import TypeMissing, message_type  # noqa: E402
from wam_ros.perception.assemble import assemble, source_specs  # noqa: E402
from wam_ros.perception.images import ImageError  # noqa: E402
from wam_ros.perception.joints import JointError, read  # noqa: E402
from wam_ros.perception.sync import Aligner  # noqa: E402


class PerceptionNode(Node):  # type: ignore[misc]
    """Subscribes to what the contract names and publishes what the policy eats."""

    def __init__(self) -> None:
        super().__init__("perception")
        robot = self.declare_parameter("robot", "agibot_g1").value
        self._sim = bool(self.declare_parameter("sim", False).value)
        self.contract = load_contract(str(robot))
        self._aligner = Aligner(source_specs(self.contract), self.contract.max_skew)
        self._sequence = 0
        self._faults: dict[str, str] = {}
        self._counts: dict[str, int] = {}
        self._observation = self.create_publisher(
            ObservationMsg, "observation", qos_profile_sensor_data
        )
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._broken = subscribe_states(self, self.contract, self._sim, self._on_state)
        self._subscribe_cameras()
        self.create_timer(1.0 / self.contract.rates.action, self._tick)
        self.create_timer(1.0, self._diagnose)
        self._reason = "waiting for the first samples"

    def _subscribe_cameras(self) -> None:
        for camera in self.contract.cameras:
            try:
                cls = message_type(camera.type)
            except TypeMissing as err:
                self._broken[camera.name] = str(err)
                self.get_logger().error(str(err))
                continue

            def deliver(message: Any, name: str = camera.name, on: str = camera.timeline) -> None:
                self._aligner.push(name, self._stamp(message, on), message)

            self.create_subscription(cls, camera.topic, deliver, qos_profile_sensor_data)

    def _now(self) -> float:
        return float(self.get_clock().now().nanoseconds) * 1e-9

    def _stamp(self, message: Any, timeline: str) -> float:
        return to_seconds(message.header.stamp) if timeline == "header" else self._now()

    def _on_state(self, source: Any, message: Any) -> None:
        try:
            values = read(message, source)
        except JointError as err:
            self._fault(source.name, str(err))
            return
        self._faults.pop(source.name, None)
        self._aligner.push(source.name, self._stamp(message, source.timeline), values)

    def _fault(self, name: str, text: str) -> None:
        self._faults[name] = text
        self.get_logger().error(text, throttle_duration_sec=2.0)

    def _tick(self) -> None:
        aligned = self._aligner.align(self._now())
        if aligned is None:
            return
        self._reason = aligned.reason
        if aligned.reason:
            self.get_logger().warning(
                f"no observation: {aligned.reason}", throttle_duration_sec=2.0
            )
            return
        try:
            observation = assemble(self.contract, aligned, self._sequence)
        except ImageError as err:
            self._reason = str(err)
            self._fault("camera", str(err))
            return
        self._faults.pop("camera", None)
        msg = observation_to_msg(observation, self.contract.robot, self.contract.state_names)
        msg.source_status = [int(p.status) for p in aligned.picked.values()]
        msg.dropped = self._aligner.dropped
        self._observation.publish(msg)
        self._sequence += 1

    def _diagnose(self) -> None:
        """Say per source what it delivers; a silent one is an error that names what to check."""
        now = self._now()
        values: dict[str, str] = {
            "observations": str(self._sequence),
            "dropped": str(self._aligner.dropped),
        }
        problems = [*self._broken.values(), *self._faults.values()]
        for source in self.contract.inputs:
            seen = self._aligner.received(source.name)
            rate = seen - self._counts.get(source.name, 0)
            self._counts[source.name] = seen
            newest = self._aligner.newest(source.name)
            age = now - newest if newest is not None else float("inf")
            values[f"{source.name}: rate (Hz)"] = str(rate)
            values[f"{source.name}: age (ms)"] = f"{age * 1e3:.0f}" if age < 1e6 else "never seen"
            if age > source.timeout and source.name not in self._broken:
                since = f"for {age:.1f} s" if age < 1e6 else "since start"
                problems.append(
                    f"nothing from '{source.name}' on {source.topic} {since}: is its driver "
                    "running, and does its QoS and topic name match?"
                )
        if self._reason and not problems:
            problems.append(self._reason)
        text = "; ".join(problems) or f"{len(self.contract.cameras)} views in step"
        level = 2 if problems else 0
        self._diagnostics.publish(status(self, "perception", level, text, values))


def main() -> int:
    """Run until interrupted; 2 when the contract cannot be used."""
    rclpy.init(signal_handler_options=rclpy.signals.SignalHandlerOptions.NO)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        node = PerceptionNode()
    except ContractError as err:
        print(f"perception: {err}", file=sys.stderr)
        return 2
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    while not stop.is_set():
        executor.spin_once(timeout_sec=0.05)
    node.destroy_node()
    rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
