"""Host a policy backend: own the instruction, keep the cadence, publish chunks.

Loading and inference run in worker threads; the ROS executor only moves messages.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from array import array
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.exceptions import InvalidHandle
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.qos import QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from sensor_msgs.msg import CompressedImage
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
    to_seconds,
    to_stamp,
)
from wam_ros.nodes.diagnostics import status
from wam_ros.nodes.instruction_server import InstructionServer
from wam_ros.nodes.lifecycle import AutostartNode, run
from wam_ros.nodes.parameters import declare
from wam_ros.nodes.qos import LATCHED, RELIABLE
from wam_ros.nodes.words import wall_stamp
from wam_ros.policy.afterwork import Afterwork
from wam_ros.policy.base import Policy, PolicyError, device_lost
from wam_ros.policy.fit import view_note
from wam_ros.policy.registry import make
from wam_ros.policy.task_run import Outcome, Settings, Sight
from wam_ros.policy.turn import Call, Turn

UNCONFIGURED, LOADING, WARMING, READY, RUNNING, ERROR = range(6)
STATE_NAMES = ("unconfigured", "loading", "warming", "ready", "running", "error")
# The frames of a chunk come in bursts of four; a viewer that is slow may lose old ones.
FRAMES = QoSProfile(depth=16, reliability=ReliabilityPolicy.BEST_EFFORT)
_SILENCE = 3.0
"""Seconds after which an executor that said nothing (it speaks at 10 Hz) is not there."""
_OBJECTS = 2.0
"""Seconds after an instruction that a simulation may take to be discovered."""
_LAST_WORDS = 0.5
"""Seconds between losing the device and ending the process."""


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
            "tokenizer": "", "device": "auto", "precision": "auto", "stall_after": 10.0,
            "imagined_video": "auto", "imagined_every": 0.0, "ranks": 1,
        }  # fmt: skip
        self._p = declare(self, defaults, loose=("imagined_video",))
        self.contract = load_contract(str(self._p["robot"]))
        self._turn = Turn(self.contract, str(self._p["cadence"]), float(self._p["period"]))
        self._backend: Policy | None = None
        self._made: Policy | None = None
        self._phase, self._reason, self._views = UNCONFIGURED, "", ""
        self._understood, self._failing = False, False
        self._word = ("", 0)
        self._taken = 0.0
        self._executor: Any = None
        self._executor_at = float("-inf")
        self._objects: dict[str, Any] = {}
        self._resting = True
        self._lost_at: float | None = None
        self._sent: list[float] = []
        self._worker: threading.Thread | None = None
        self._calling = False
        self._lock = threading.Lock()
        # While it is held, the instruction in force does not change.
        self._saying = threading.Lock()
        self._interfaces()
        self._afterwork = Afterwork(
            lambda late, value: self._surprise_out.publish(Float32(data=value)),
            self._publish_frame,
            self._now,
            self._on_afterwork_error,
            every=float(self._p["imagined_every"]) or float("inf"),
        )

    def _interfaces(self) -> None:
        self._state_out = self.create_publisher(PolicyState, "policy_state", LATCHED)
        self._chunk_out = self.create_publisher(ActionChunkMsg, "action_chunk", RELIABLE)
        self._trajectory_out = self.create_publisher(
            JointTrajectory, "action_chunk/joint_trajectory", RELIABLE
        )
        self._surprise_out = self.create_publisher(Float32, "surprise", 10)
        self._video_out = self.create_publisher(CompressedImage, "imagined_video", FRAMES)
        self._diagnostics_out = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self.create_subscription(String, "instruction", self._on_instruction, 10)
        self.create_subscription(
            ObservationMsg, "observation", self._on_observation, qos_profile_sensor_data
        )
        self.create_subscription(ExecutorState, "executor_state", self._on_executor, LATCHED)
        self.create_subscription(MarkerArray, "sim/objects", self._on_objects, 10)
        settings = Settings(stall_after=float(self._p["stall_after"]))
        self._runs = InstructionServer(self, self._look, self._take, settings)
        # Each wake-up costs a millisecond that the model could use: the end of a call tells itself.
        self.create_timer(0.02, self._tick)
        self._done = self.create_guard_condition(self._tick)
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
        self._runs.end(Outcome.ERROR, "the policy node was cleaned up")
        self._let_go()
        self._backend = self._made = None
        self._set(UNCONFIGURED, "")
        return TransitionCallbackReturn.SUCCESS

    def shut_down(self) -> None:
        """Tell who runs an instruction, then let the backend go."""
        self._runs.shut_down()
        self._let_go()

    def _let_go(self) -> None:
        """End sessions on servers; also while the backend is still loading."""
        self._afterwork.stop(glance=True)
        if self._made is not None:
            self._made.close()
        # torch aborts a process that ends while a thread is inside of it.
        self._afterwork.rest(1.0)
        if self._worker is not None:
            self._worker.join(1.0)

    def _load(self) -> None:
        try:
            backend = self._made = make(str(self._p["policy"]), self._p)
            backend.configure(self.contract)
            self._views = view_note(self.contract, getattr(backend, "view_size", None))
            if self._views:
                self.get_logger().warning(self._views)
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

    def _on_instruction(self, message: Any, info: dict[str, int]) -> None:
        text, said_at = message.data.strip(), info["source_timestamp"]
        if self._runs.echoes(text, said_at):
            return
        if text != self._turn.instruction or not self._understood:
            self._take(text, said_at)
        else:  # an executor that was told to hold meanwhile, and missed this, hears of it
            self._note(text, said_at)
            self._publish_state()

    def _note(self, text: str, said_at: int) -> None:
        """Note when an instruction was said; what comes later here is told as later, always.

        Others may have heard in another order, from a clock that is behind, or what this node says
        at the end of a goal after what was said at the same time. They are to know what counts.
        """
        if said_at <= self._word[1]:
            said_at = max(self._word[1] + 1, time.time_ns())
        self._word = (text, said_at)

    def _take(self, text: str, said_at: int) -> None:
        """Put an instruction in force; an empty one means hold."""
        with self._saying:
            self._turn.say(text)
            self._note(text, said_at)
            self._taken = time.monotonic()
            self._understood, self._failing = bool(text), False
        self.get_logger().info(f"instruction: '{text}'" if text else "instruction cleared: hold")
        if self._phase in (READY, RUNNING):
            self._set(READY, "")
        else:
            self._publish_state()

    def _on_observation(self, message: Any) -> None:
        self._turn.see(observation_from_msg(message))
        self._tick()  # a call that is due need not wait for the timer

    def _on_executor(self, message: Any) -> None:
        self._executor, self._executor_at = message, time.monotonic()
        self._resting = message.mode_name in ("holding", "disarmed")
        self._turn.progress.tell(
            to_seconds(message.header.stamp),
            int(message.chunk_sequence),
            float(message.row_progress),
            float(message.pace) if message.mode_name == "tracking" else 0.0,
        )

    def _on_objects(self, message: Any) -> None:
        if self._backend is not None and self._backend.needs_objects:
            for m in message.markers:
                p = m.pose.position
                self._objects[m.ns] = np.array([p.x, p.y, p.z])

    def _look(self) -> Sight:
        """What `run_instruction` needs to know of this node."""
        heard = time.monotonic() - self._executor_at < _SILENCE
        newest = self._turn.frames.newest
        return Sight(
            0.0,
            phase=STATE_NAMES[self._phase],
            reason=self._reason,
            active=self._active,
            instruction=self._turn.instruction,
            understood=self._understood,
            thinking=self._busy and not self._failing,
            mode=self._executor.mode_name if heard else "",
            executor_reason=self._executor.reason if heard else "",
            state=newest.state if newest else None,
            chunks=self._turn.sequence,
        )

    # ---- calls ---------------------------------------------------------------------------------

    def _now(self) -> float:
        return float(self.get_clock().now().nanoseconds) * 1e-9

    @property
    def _busy(self) -> bool:
        return self._calling

    def _tick(self) -> None:
        if self._lost_at is not None:
            # Nothing in this process can bring a GPU context back; the supervisor can. Whoever
            # runs an instruction is told first.
            if time.monotonic() - self._lost_at > _LAST_WORDS:
                self._lost_at = None  # once: shutting down spins, too, and must get to its end
                raise SystemExit(3)
            return
        if not (self._active and self._phase in (READY, RUNNING) and self._understood):
            return
        if self._busy or self._blind():
            return
        decision = self._turn.begin(self._now(), self._resting)
        if decision is None:
            return
        self._reason = decision.reason
        self._afterwork.stop()
        call = self._turn.call(self._backend, dict(self._objects), decision.cadence)
        self._calling = True
        self._worker = threading.Thread(target=self._work, args=(call,), daemon=True)
        self._worker.start()

    def _blind(self) -> bool:
        """Whether the scene's objects are still to be heard of, by a teacher that needs them."""
        missing = self._backend is not None and self._backend.needs_objects and not self._objects
        return missing and time.monotonic() - self._taken < _OBJECTS

    def _work(self, call: Call) -> None:
        try:
            self._call(call)
        finally:
            self._calling = False
            with contextlib.suppress(InvalidHandle):  # the node has gone meanwhile
                self._done.trigger()

    def _call(self, call: Call) -> None:
        backend = self._backend
        assert backend is not None
        begin = self._now()
        try:
            if call.fresh:
                backend.reset(call.instruction)
            chunk = backend.infer(call.window)
            thought = getattr(backend, "imagine", lambda: None)()
        except ValueError as err:  # an instruction nobody understands is the speaker's mistake
            self.get_logger().warning(str(err))
            with self._saying:
                if self._turn.answers(call):
                    self._set(READY, str(err))
                    self._understood = False  # after the reason, which whoever runs it is told
            return
        except PolicyError as err:
            self.get_logger().error(str(err), throttle_duration_sec=2.0)
            with self._saying:
                self._turn.fresh = True
                if self._turn.answers(call):
                    self._failing = True
                    self._set(READY, str(err))
            return
        except Exception as err:  # a crash of the backend must not take the node along
            self.get_logger().error(f"backend failed: {type(err).__name__}: {err}")
            self._set(ERROR, f"{type(err).__name__}: {err}")
            if device_lost(err):
                self._lost_at = time.monotonic()
            return
        end = self._now()
        with self._saying:
            if not self._turn.answers(call):
                return  # the instruction changed meanwhile: this chunk answers the old one
            self._turn.latency.add(end - begin, warm_up=call.fresh)
            late = self._publish_chunk(self._turn.stamp(chunk, call, begin, end))
        if thought is not None:
            thought = replace(thought, frames=((t, _jpeg(rgb)) for t, rgb in thought.frames))
            due = self._turn.scheduler.next_call(self._turn.expected)
            self._afterwork.start(thought, due, late)

    def _publish_chunk(self, chunk: ActionChunk) -> float:
        """Send a chunk; returns by how many seconds its rows run behind its stamps."""
        now = self._now()
        self._failing = False
        self._sent = [*self._sent[-10:], now]
        late = self._turn.deliver(chunk, now, self._resting)
        self._chunk_out.publish(chunk_to_msg(chunk, self.contract.robot))
        self._trajectory_out.publish(chunk_to_trajectory(chunk))
        if self._phase != RUNNING:
            self._set(RUNNING, self._reason)
        return late

    def _publish_frame(self, late: float, stamp: float, jpeg: bytes) -> None:
        message = CompressedImage(format="jpeg", data=array("B", jpeg))
        message.header.stamp = to_stamp(stamp + late)
        message.header.frame_id = self.contract.robot
        self._video_out.publish(message)

    def _on_afterwork_error(self, error: Exception) -> None:
        self.get_logger().warning(
            f"imagined video: {type(error).__name__}: {error}", throttle_duration_sec=10.0
        )

    # ---- telemetry -----------------------------------------------------------------------------

    def _publish_state(self) -> None:
        with self._lock:
            backend, (text, said_at) = self._backend, self._word
            span = self._sent[-1] - self._sent[0] if len(self._sent) > 1 else 0.0
            msg = PolicyState(
                state=self._phase,
                state_name=STATE_NAMES[self._phase],
                reason=getattr(backend, "notice", "") or self._reason,
                backend=str(self._p["policy"]),
                model=backend.model if backend else "",
                precision=backend.precision if backend else "",
                cadence=self._turn.scheduler.in_force(self._turn.expected)[0],
                requested_cadence=self._turn.scheduler.requested,
                instruction=text,
                instruction_stamp=wall_stamp(said_at),
                chunks=self._turn.sequence,
                chunk_rate=(len(self._sent) - 1) / span if span > 0 else 0.0,
                latency_p50=self._turn.latency.shown(50),
                latency_p95=self._turn.latency.shown(95),
                context_fill=float(getattr(backend, "context_fill", 0.0)),
            )
            msg.header.stamp = to_stamp(self._now())
            self._state_out.publish(msg)

    def _diagnose(self) -> None:
        level = 2 if self._phase == ERROR else int(self._phase < READY or bool(self._reason))
        text = STATE_NAMES[self._phase] + (f": {self._reason}" if self._reason else "")
        values = {
            "latency p50 (ms)": f"{self._turn.latency.shown(50) * 1e3:.0f}",
            "latency p95 (ms)": f"{self._turn.latency.shown(95) * 1e3:.0f}",
            "chunks": str(self._turn.sequence),
        }
        if self._views:
            values["views"] = self._views
        more = getattr(self._backend, "diagnostics", None)
        if self._phase in (READY, RUNNING) and more is not None:
            values |= more()
        if self._afterwork.shown or self._afterwork.dropped:
            values["imagined frames"] = str(self._afterwork.shown)
            values["imagined videos cut short"] = str(self._afterwork.dropped)
        self._diagnostics_out.publish(status(self, "policy", level, text, values))


def _jpeg(rgb: Any) -> bytes:
    return bytes(cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])[1])


def main() -> int:
    """Run until interrupted; 2 when the parameters cannot be used."""
    return run(PolicyNode, "policy", (ContractError, ValueError))


if __name__ == "__main__":
    sys.exit(main())
