"""The executor as a ROS node: one process, one 500 Hz thread, subscriptions beside it."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import threading
import time
from array import array
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from std_msgs.msg import Bool, String
from std_srvs.srv import SetBool, Trigger

from wam_ros.contract import ContractError, load_contract
from wam_ros.execution import Executor, Mode, Settings
from wam_ros.execution.clock import ClockMap
from wam_ros.execution.metrics import Window
from wam_ros.execution.outputs import channels
from wam_ros.msg import ActionChunk as ActionChunkMsg
from wam_ros.msg import ExecutorState
from wam_ros.nodes.convert import chunk_from_msg, to_stamp
from wam_ros.nodes.diagnostics import status
from wam_ros.nodes.publishers import command_publisher
from wam_ros.nodes.sources import subscribe_states
from wam_ros.perception.joints import JointError, read

LATCHED = QoSProfile(
    depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL, reliability=ReliabilityPolicy.RELIABLE
)


class ExecutorNode(Node):  # type: ignore[misc]
    """Feeds the execution core from topics and runs its loop in a thread of its own."""

    def __init__(self) -> None:
        super().__init__("executor")
        p = self._declare()
        self.contract = load_contract(p["robot"])
        self._sim = bool(p["sim"])
        self._auto_arm = bool(p["armed"]) and self._sim
        if p["armed"] and not self._sim:
            self.get_logger().warning("armed:=true is honoured in simulation only; call ~/arm")
        self._core = Executor(
            self.contract,
            Settings(reanchor_cap=p["reanchor_cap"], fade=p["fade"], blend=p["blend"]),
        )
        self._lock = threading.Lock()
        self._lateness = Window(5000)
        self._missed = 0
        self._clock_map = ClockMap(self._ros(), time.monotonic())
        self._stop = threading.Event()
        self._channels = [
            (c, command_publisher(self, c.output, self._core.names, c.columns))
            for c in channels(self.contract, self._core.names, self._sim)
        ]
        self._interfaces()
        self._fifo(int(p["rt_priority"]))
        self._published: tuple[Any, ...] = ()
        self._thread = threading.Thread(target=self._loop, name="control", daemon=True)
        self._thread.start()

    def _declare(self) -> dict[str, Any]:
        defaults: dict[str, Any] = {
            "robot": "agibot_g1",
            "sim": False,
            "armed": False,
            "reanchor_cap": Settings.reanchor_cap,
            "fade": Settings.fade,
            "blend": Settings.blend,
            "rt_priority": 0,
        }
        return {k: self.declare_parameter(k, v).value for k, v in defaults.items()}

    def _interfaces(self) -> None:
        reliable = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
        subscribe_states(self, self.contract, self._sim, self._on_state)
        self.create_subscription(ActionChunkMsg, "action_chunk", self._on_chunk, reliable)
        self.create_subscription(Bool, "estop", self._on_estop, LATCHED)
        self.create_subscription(String, "instruction", self._on_instruction, 10)
        self.create_service(SetBool, "arm", self._on_arm)
        self.create_service(Trigger, "hold", self._on_hold)
        self.create_service(Trigger, "reset", self._on_reset)
        self.create_service(Trigger, "estop", self._on_estop_service)
        self._state_pub = self.create_publisher(ExecutorState, "executor_state", LATCHED)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self.create_timer(0.1, self._publish_state)
        self.create_timer(0.02, self._on_change)
        self.create_timer(1.0, self._publish_diagnostics)

    def _fifo(self, priority: int) -> None:
        if priority <= 0:
            return
        try:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
        except (PermissionError, OSError) as err:
            self.get_logger().warning(
                f"SCHED_FIFO {priority} refused ({err}); see `wam doctor` for the limits file"
            )

    # ---- the loop ------------------------------------------------------------------------------

    def _ros(self) -> float:
        return float(self.get_clock().now().nanoseconds) * 1e-9

    def _loop(self) -> None:
        # Collections of a long-lived heap take milliseconds; nothing in the loop needs them.
        gc.collect()
        gc.freeze()
        gc.disable()
        period = 1.0 / self.contract.rates.control
        deadline = time.monotonic() + period
        tick = 0
        while not self._stop.is_set():
            delay = deadline - time.monotonic()
            if delay > 0:
                time.sleep(delay)
            now = time.monotonic()
            self._lateness.add(now - deadline)
            self._tick(tick, now)
            tick += 1
            deadline += period
            behind = int((time.monotonic() - deadline) / period)
            if behind > 0:  # skip what was missed instead of bursting
                self._missed += behind
                tick += behind
                deadline += behind * period

    def _tick(self, tick: int, monotonic: float) -> None:
        jumped = tick % 50 == 0 and self._clock_map.update(self._ros(), time.monotonic())
        now = self._clock_map.ros(monotonic)
        with self._lock:
            if jumped:
                self._core.hold("ROS time jumped")
            command = self._core.tick(now)
            measured = self._core.measured
        if command is None:
            return
        for channel, publish in self._channels:
            if channel.due(tick):
                publish(channel.raw(command, measured), now)

    def _now(self) -> float:
        return self._clock_map.ros(time.monotonic())

    # ---- subscriptions -------------------------------------------------------------------------

    def _on_state(self, source: Any, message: Any) -> None:
        try:
            values = read(message, source)
        except JointError as err:
            self.get_logger().error(str(err), throttle_duration_sec=2.0)
            return
        with self._lock:
            self._core.set_measured(values, self._now())
            if self._auto_arm and not self._core.arm(self._now()):
                self._auto_arm = False

    def _on_chunk(self, message: Any) -> None:
        try:
            chunk = chunk_from_msg(message)
        except ValueError as err:
            with self._lock:
                self._core.reject(str(err))
            self.get_logger().error(str(err), throttle_duration_sec=1.0)
            return
        with self._lock:
            reason = self._core.submit(chunk, self._now())
        if reason:
            self.get_logger().warning(reason, throttle_duration_sec=1.0)

    def _on_instruction(self, message: Any) -> None:
        if not message.data.strip():
            with self._lock:
                self._core.hold("instruction is empty")

    def _on_estop(self, message: Any) -> None:
        if message.data:
            with self._lock:
                self._core.estop("e-stop pressed")
            self.get_logger().error("e-stop: latched until reset")

    def _on_estop_service(self, _: Any, response: Any) -> Any:
        with self._lock:
            self._core.estop("e-stop service called")
        response.success, response.message = True, "stopped and latched; call reset, then arm"
        return response

    def _on_arm(self, request: Any, response: Any) -> Any:
        with self._lock:
            reason = self._core.arm(self._now()) if request.data else ""
            if not request.data:
                self._core.disarm("disarmed by request")
        response.success = not reason
        response.message = reason or ("armed" if request.data else "disarmed")
        return response

    def _on_hold(self, _: Any, response: Any) -> Any:
        with self._lock:
            self._core.hold("hold service called")
        response.success, response.message = True, "holding"
        return response

    def _on_reset(self, _: Any, response: Any) -> Any:
        with self._lock:
            self._core.reset()
            response.message = self._core.reason
        response.success = True
        return response

    # ---- telemetry -----------------------------------------------------------------------------

    def _on_change(self) -> None:
        with self._lock:
            seen = (self._core.mode, self._core.reason, self._core.counters.rejected)
        if seen != self._published:
            self._published = seen
            self._publish_state()

    def _publish_state(self) -> None:
        now = self._now()
        with self._lock:
            core, counters = self._core, self._core.counters
            sequence, row, margin = core.progress(now)
            msg = ExecutorState(
                mode=int(core.mode),
                mode_name=core.mode.name.lower(),
                armed=core.mode not in (Mode.DISARMED, Mode.ESTOPPED),
                reason=core.reason,
                chunk_sequence=sequence,
                row_progress=row,
                buffer_margin=margin,
                ticks=counters.ticks,
                chunks_accepted=counters.accepted,
                chunks_rejected=counters.rejected,
                limiter_ticks=counters.limiter_ticks,
                seam_jump_max=counters.seam_jump_max,
                following_error=counters.following_error,
                reference=array("d", core.reference),
            )
            p50, p95 = counters.latency.percentiles(50, 95)
        late50, late99, worst = self._lateness.percentiles(50, 99, 100)
        msg.observation_to_command_p50, msg.observation_to_command_p95 = p50, p95
        msg.lateness_p50, msg.lateness_p99, msg.lateness_max = late50, late99, worst
        msg.missed_ticks = self._missed
        msg.joint_names = list(core.names)
        msg.header.stamp = to_stamp(now)
        self._state_pub.publish(msg)

    def _publish_diagnostics(self) -> None:
        with self._lock:
            mode, reason = self._core.mode, self._core.reason
        level = 2 if mode is Mode.ESTOPPED else int(mode is Mode.DISARMED)
        late50, late99, worst = self._lateness.percentiles(50, 99, 100)
        values = {
            "lateness p50 (us)": f"{late50 * 1e6:.0f}",
            "lateness p99 (us)": f"{late99 * 1e6:.0f}",
            "lateness max (us)": f"{worst * 1e6:.0f}",
            "missed ticks": str(self._missed),
        }
        text = f"{mode.name.lower()}: {reason}" if reason else mode.name.lower()
        self._diagnostics.publish(status(self, "executor", level, text, values))

    def shut_down(self) -> None:
        """Decelerate to a hold, keep sending it until at rest, then end the loop."""
        with self._lock:
            self._core.hold("shutting down")
        end = time.monotonic() + 2.0
        while not self._core.at_rest and time.monotonic() < end:
            time.sleep(0.01)
        self._stop.set()
        self._thread.join(timeout=1.0)


def main() -> int:
    """Run until interrupted; 2 when the contract cannot be used."""
    # The control thread must not wait the default 5 ms for a subscription callback to yield.
    sys.setswitchinterval(0.0002)
    # The default handler would end the context before the arm has come to rest.
    rclpy.init(signal_handler_options=rclpy.signals.SignalHandlerOptions.NO)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        node = ExecutorNode()
    except ContractError as err:
        print(f"executor: {err}", file=sys.stderr)
        return 2
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    with contextlib.suppress(ExternalShutdownException):
        while not stop.is_set():
            executor.spin_once(timeout_sec=0.05)
    node.shut_down()
    node.destroy_node()
    rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
