"""Aggregate cameras and joint states into Observation messages at the action rate."""

from __future__ import annotations

import sys
from typing import Any

from wam_ros import dds

dds.use_profile()  # observations carry images; must precede rclpy

from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn  # noqa: E402
from rclpy.qos import qos_profile_sensor_data  # noqa: E402

from wam_ros.contract import ContractError, load_contract  # noqa: E402
from wam_ros.contract.model import Camera, StateSource  # noqa: E402
from wam_ros.msg import Observation as ObservationMsg  # noqa: E402
from wam_ros.nodes.convert import observation_to_msg, to_seconds  # noqa: E402
from wam_ros.nodes.diagnostics import status  # noqa: E402
from wam_ros.nodes.lifecycle import AutostartNode, run  # noqa: E402
from wam_ros.nodes.parameters import declare  # noqa: E402
from wam_ros.nodes.sources import subscribe_states  # noqa: E402
from wam_ros.nodes.types import TypeMissing, message_type  # noqa: E402
from wam_ros.perception.assemble import assemble, source_specs  # noqa: E402
from wam_ros.perception.images import ImageError  # noqa: E402
from wam_ros.perception.joints import JointError, read  # noqa: E402
from wam_ros.perception.loss import lost_share  # noqa: E402
from wam_ros.perception.sync import Aligner  # noqa: E402

LOSS = 0.2
"""Share of lost frames from which a camera is reported."""


class PerceptionNode(AutostartNode):
    """Subscribes to what the contract names and publishes what the policy eats.

    Active, it publishes observations; inactive, it only listens and diagnoses.
    """

    def __init__(self) -> None:
        super().__init__("perception")
        p = declare(self, {"robot": "agibot_g1", "sim": False})
        robot, self._sim = p["robot"], bool(p["sim"])
        self.contract = load_contract(str(robot))
        self._aligner = Aligner(source_specs(self.contract), self.contract.max_skew)
        self._sequence = 0
        self._faults: dict[str, str] = {}
        self._counts: dict[str, int] = {}
        self._broken: dict[str, str] = {}
        self._reason = "waiting for the first samples"
        self._observation = self.create_publisher(
            ObservationMsg, "observation", qos_profile_sensor_data
        )
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe to every source; one that cannot be is reported and leaves the rest alone."""
        self._subscriptions_made, self._broken = subscribe_states(
            self, self.contract, self._sim, self._on_state
        )
        self._subscribe_cameras()
        self._timers_made = [
            self.create_timer(1.0 / self.contract.rates.action, self._tick),
            self.create_timer(1.0, self._diagnose),
        ]
        return TransitionCallbackReturn.SUCCESS

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe."""
        for timer in self._timers_made:
            self.destroy_timer(timer)
        for subscription in self._subscriptions_made:
            self.destroy_subscription(subscription)
        return TransitionCallbackReturn.SUCCESS

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

            self._subscriptions_made.append(
                self.create_subscription(cls, camera.topic, deliver, qos_profile_sensor_data)
            )

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
        if not self._active:
            return
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
        warnings = []
        cameras = {c.name for c in self.contract.cameras}
        for source in self.contract.inputs:
            seen = self._aligner.received(source.name)
            rate = seen - self._counts.get(source.name, 0)
            self._counts[source.name] = seen
            newest = self._aligner.newest(source.name)
            age = now - newest if newest is not None else float("inf")
            values[f"{source.name}: rate (Hz)"] = str(rate)
            values[f"{source.name}: age (ms)"] = f"{age * 1e3:.0f}" if age < 1e6 else "never seen"
            if source.name in self._broken:
                continue
            if abs(age) > source.timeout:
                problems.append(_silence(source, age, rate))
            elif source.name in cameras:
                lost = lost_share(self._aligner.stamps(source.name))
                values[f"{source.name}: lost (%)"] = f"{lost * 100:.0f}"
                if lost > LOSS:
                    warnings.append(
                        f"{lost * 100:.0f} % of the frames of '{source.name}' are lost on the "
                        f"way: start its driver with `{dds.environment_line()}`"
                    )
        if self._reason and not problems:
            problems.append(self._reason)
        text = "; ".join([*problems, *warnings]) or f"{len(cameras)} views in step"
        level = 2 if problems else int(bool(warnings))
        self._diagnostics.publish(status(self, "perception", level, text, values))


def _silence(source: StateSource | Camera, age: float, rate: int) -> str:
    """What to check when a source's newest stamp lies ``age`` seconds back (or ahead, if < 0)."""
    if rate:
        where = f"{abs(age):.1f} s {'behind' if age > 0 else 'ahead of'}"
        return (
            f"stamps of '{source.name}' on {source.topic} are {where} ROS time: synchronise its "
            "driver's clock, or set `timeline: receive` for it in the contract"
        )
    since = f"for {age:.1f} s" if age < 1e6 else "since start"
    return (
        f"nothing from '{source.name}' on {source.topic} {since}: is its driver running, and does "
        "its QoS and topic name match?"
    )


def main() -> int:
    """Run until interrupted; 2 when the contract cannot be used."""
    return run(PerceptionNode, "perception", (ContractError,))


if __name__ == "__main__":
    sys.exit(main())
