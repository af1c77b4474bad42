"""Host a policy backend: own the instruction, keep the cadence, publish chunks.

Loading and inference run in worker threads; the ROS executor only moves messages.
"""

from __future__ import annotations

import sys
import threading
from dataclasses import replace
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from std_msgs.msg import Float32, String
from trajectory_msgs.msg import JointTrajectory
from visualization_msgs.msg import MarkerArray

from wam_ros.contract import ContractError, load_contract
from wam_ros.contract.data import ActionChunk
from wam_ros.msg import ActionChunk as ActionChunkMsg
from wam_ros.msg import ExecutorState, PolicyState
from wam_ros.msg import Observation as ObservationMsg
from wam_ros.nodes.convert import (
    chunk_to_msg,
    chunk_to_trajectory,
    observation_from_msg,
    to_stamp,
)
from wam_ros.nodes.diagnostics import status
from wam_ros.nodes.lifecycle import AutostartNode, run
from wam_ros.policy.base import Policy, PolicyError, Window, device_lost, frame_rows
from wam_ros.policy.cadence import Latency, Scheduler
from wam_ros.policy.frames import FrameBuffer
from wam_ros.policy.registry import make

UNCONFIGURED, LOADING, WARMING, READY, RUNNING, ERROR = range(6)
STATE_NAMES = ("unconfigured", "loading", "warming", "ready", "running", "error")
LATCHED = QoSProfile(
    depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL, reliability=ReliabilityPolicy.RELIABLE
)
RELIABLE = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
FIRST = ActionChunkMsg.CONTEXT_NEW_INSTRUCTION | ActionChunkMsg.CONTEXT_WARM_UP
_MAX_OBSERVATION_AGE = 0.5


class PolicyNode(AutostartNode):
    """Loads in a worker on configure; active, it answers the instruction with chunks.

    Deactivated, it falls silent and the executor comes to a hold by itself.
    """

    def __init__(self) -> None:
        super().__init__("policy")
        defaults: dict[str, Any] = {
            "robot": "agibot_g1", "policy": "scripted", "cadence": "async", "latency": 0.1,
            "period": 1.0 / 7.0, "replay_file": "", "server": "", "server_timeout": 10.0,
            "server_wait": 60.0, "server_token_file": "", "server_ca": "", "server_names": "",
            "server_actions": "auto", "server_channels": "", "checkpoint": "", "base": "",
            "tokenizer": "", "device": "auto", "precision": "auto",
        }  # fmt: skip
        self._p = {k: self.declare_parameter(k, v).value for k, v in defaults.items()}
        self.contract = load_contract(str(self._p["robot"]))
        rates = self.contract.rates
        self._scheduler = Scheduler(
            str(self._p["cadence"]), rates.horizon * rates.step_period, float(self._p["period"])
        )
        self._frames = FrameBuffer(rates.step_period * rates.video_stride)
        self._backend: Policy | None = None
        self._made: Policy | None = None
        self._latency = Latency()
        self._phase, self._reason = UNCONFIGURED, ""
        self._instruction, self._fresh = "", False
        self._understood = False
        self._objects: dict[str, Any] = {}
        self._resting, self._rows, self._rows_of = True, 0.0, 0
        self._sequence = 0
        self._lost = False
        self._called_with = float("-inf")
        self._sent: list[float] = []
        self._worker: threading.Thread | None = None
        self._lock = threading.Lock()
        self._interfaces()

    def _interfaces(self) -> None:
        self._state_out = self.create_publisher(PolicyState, "policy_state", LATCHED)
        self._chunk_out = self.create_publisher(ActionChunkMsg, "action_chunk", RELIABLE)
        self._trajectory_out = self.create_publisher(
            JointTrajectory, "action_chunk/joint_trajectory", RELIABLE
        )
        self._surprise_out = self.create_publisher(Float32, "surprise", 10)
        self._diagnostics_out = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self.create_subscription(String, "instruction", self._on_instruction, 10)
        self.create_subscription(
            ObservationMsg, "observation", self._on_observation, qos_profile_sensor_data
        )
        self.create_subscription(ExecutorState, "executor_state", self._on_executor, LATCHED)
        self.create_subscription(MarkerArray, "sim/objects", self._on_objects, 10)
        self.create_timer(0.01, self._tick)
        self.create_timer(0.5, self._publish_state)
        self.create_timer(1.0, self._diagnose)

    # ---- lifecycle -----------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start loading in a worker; success means that loading began."""
        self._set(LOADING, "")
        threading.Thread(target=self._load, daemon=True).start()
        return TransitionCallbackReturn.SUCCESS

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let the backend go."""
        self.shut_down()
        self._backend = self._made = None
        self._set(UNCONFIGURED, "")
        return TransitionCallbackReturn.SUCCESS

    def shut_down(self) -> None:
        """End sessions on servers; also while the backend is still loading."""
        if self._made is not None:
            self._made.close()

    def _load(self) -> None:
        try:
            backend = self._made = make(str(self._p["policy"]), self._p)
            backend.configure(self.contract)
            self._set(WARMING, "")
            backend.warm_up()
        except Exception as err:  # whatever a backend raises must end as a readable state
            self._set(ERROR, f"{type(err).__name__}: {err}")
            self.get_logger().error(f"policy '{self._p['policy']}' did not load: {err}")
            return
        self._backend = backend
        self._set(READY, "")

    def _set(self, phase: int, reason: str) -> None:
        self._phase, self._reason = phase, reason
        self._publish_state()

    # ---- inputs --------------------------------------------------------------------------------

    def _on_instruction(self, message: Any) -> None:
        text = message.data.strip()
        if text == self._instruction and self._understood:
            return
        self._instruction, self._fresh, self._understood = text, True, bool(text)
        self._scheduler.reset()
        self.get_logger().info(f"instruction: '{text}'" if text else "instruction cleared: hold")
        if self._phase == RUNNING:
            self._set(READY, "")

    def _on_observation(self, message: Any) -> None:
        observation = observation_from_msg(message)
        newest = self._frames.newest
        if newest is not None and observation.t0 < newest.t0 - 1.0:  # the clock was set back
            self._frames.clear()
            self._called_with = float("-inf")
        self._frames.push(observation)
        self._tick()  # a call that is due need not wait for the timer

    def _on_executor(self, message: Any) -> None:
        self._resting = message.mode_name in ("holding", "disarmed")
        self._rows, self._rows_of = float(message.row_progress), int(message.chunk_sequence)

    def _on_objects(self, message: Any) -> None:
        if self._backend is not None and self._backend.needs_objects:
            for m in message.markers:
                p = m.pose.position
                self._objects[m.ns] = np.array([p.x, p.y, p.z])

    # ---- calls ---------------------------------------------------------------------------------

    def _now(self) -> float:
        return float(self.get_clock().now().nanoseconds) * 1e-9

    def _expected(self) -> float:
        # What the first call of all took is no reason to leave the cadence asked for.
        return self._latency.expected(0.4 * self._scheduler.horizon)

    def _tick(self) -> None:
        if self._lost:  # nothing in this process can bring a GPU context back; the supervisor can
            raise SystemExit(3)
        if not (self._active and self._phase in (READY, RUNNING) and self._understood):
            return
        busy = self._worker is not None and self._worker.is_alive()
        newest = self._frames.newest
        now = self._now()
        if busy or newest is None or now - newest.t0 > _MAX_OBSERVATION_AGE:
            return
        if newest.t0 <= self._called_with:  # a model must not be shown the same frame twice
            return
        decision = self._scheduler.decide(now, self._expected(), self._resting)
        if not decision.call:
            return
        self._reason = decision.reason
        self._scheduler.called(now)
        self._called_with = newest.t0
        # Rows of an older chunk say nothing about the last one, which may have been refused.
        executed = self._rows if self._rows_of == self._sequence else 0.0
        period = self.contract.rates.step_period
        window = Window(
            self._frames.at([row * period for row in frame_rows(self._backend)]),
            dict(self._objects),
            executed,
            decision.cadence,
        )
        self._worker = threading.Thread(
            target=self._call, args=(window, self._instruction, self._fresh), daemon=True
        )
        self._fresh = False
        self._worker.start()

    def _call(self, window: Window, instruction: str, fresh: bool) -> None:
        backend = self._backend
        assert backend is not None
        begin = self._now()
        try:
            if fresh:
                backend.reset(instruction)
            chunk = backend.infer(window)
        except ValueError as err:  # an instruction nobody understands is the speaker's mistake
            self._understood = False
            self.get_logger().warning(str(err))
            self._set(READY, str(err))
            return
        except PolicyError as err:
            self._fresh = True
            self.get_logger().error(str(err), throttle_duration_sec=2.0)
            self._set(READY, str(err))
            return
        except Exception as err:  # a crash of the backend must not take the node along
            self._lost = device_lost(err)
            self.get_logger().error(f"backend failed: {type(err).__name__}: {err}")
            self._set(ERROR, f"{type(err).__name__}: {err}")
            return
        end = self._now()
        if instruction != self._instruction:
            return  # the instruction changed meanwhile: this chunk answers the old one
        self._latency.add(end - begin, warm_up=fresh)
        self._publish_chunk(
            replace(
                chunk,
                sequence=self._sequence + 1,
                inference_start=begin,
                inference_end=end,
                instruction=instruction,
                cadence=window.cadence,
                context_flags=chunk.context_flags | (FIRST if fresh else 0),
            )
        )

    def _publish_chunk(self, chunk: ActionChunk) -> None:
        self._sequence = chunk.sequence
        self._sent = [*self._sent[-10:], self._now()]
        # There the executor starts the rows on arrival; see Executor.
        on_arrival = chunk.cadence == "sync" or (
            self._resting and bool(chunk.context_flags & ActionChunkMsg.CONTEXT_WARM_UP)
        )
        late = self._now() - chunk.t0 if on_arrival else 0.0
        self._scheduler.horizon = chunk.horizon * chunk.step_period
        self._scheduler.delivered(chunk.t_end + late)
        self._chunk_out.publish(chunk_to_msg(chunk, self.contract.robot))
        self._trajectory_out.publish(chunk_to_trajectory(chunk))
        surprise = getattr(self._backend, "surprise", None)
        if surprise is not None:
            self._surprise_out.publish(Float32(data=float(surprise)))
        if self._phase != RUNNING:
            self._set(RUNNING, self._reason)

    # ---- telemetry -----------------------------------------------------------------------------

    def _publish_state(self) -> None:
        with self._lock:
            backend = self._backend
            span = self._sent[-1] - self._sent[0] if len(self._sent) > 1 else 0.0
            msg = PolicyState(
                state=self._phase,
                state_name=STATE_NAMES[self._phase],
                reason=self._reason,
                backend=str(self._p["policy"]),
                model=backend.model if backend else "",
                precision=backend.precision if backend else "",
                cadence=self._scheduler.in_force(self._expected())[0],
                requested_cadence=self._scheduler.requested,
                instruction=self._instruction,
                chunks=self._sequence,
                chunk_rate=(len(self._sent) - 1) / span if span > 0 else 0.0,
                latency_p50=self._latency.percentile(50),
                latency_p95=self._latency.percentile(95),
                context_fill=float(getattr(backend, "context_fill", 0.0)),
            )
            msg.header.stamp = to_stamp(self._now())
            self._state_out.publish(msg)

    def _diagnose(self) -> None:
        level = 2 if self._phase == ERROR else int(self._phase < READY or bool(self._reason))
        text = STATE_NAMES[self._phase] + (f": {self._reason}" if self._reason else "")
        values = {
            "latency p50 (ms)": f"{self._latency.percentile(50) * 1e3:.0f}",
            "latency p95 (ms)": f"{self._latency.percentile(95) * 1e3:.0f}",
            "chunks": str(self._sequence),
        }
        more = getattr(self._backend, "diagnostics", None)
        if self._phase in (READY, RUNNING) and more is not None:
            values |= more()
        self._diagnostics_out.publish(status(self, "policy", level, text, values))


def main() -> int:
    """Run until interrupted; 2 when the parameters cannot be used."""
    return run(PolicyNode, "policy", (ContractError, ValueError))


if __name__ == "__main__":
    sys.exit(main())
