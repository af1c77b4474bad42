"""The executor as a ROS node: the control loop in a thread of its own, ROS around it.

The loop itself reads joint states, chunks and the e-stop (see `mailbox`) and publishes commands.
Services, timers and telemetry run in the ROS executor and reach the core through the loop.
"""

from __future__ import annotations

import contextlib
import gc
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from std_msgs.msg import Bool, Empty, String
from std_srvs.srv import SetBool, Trigger

from wam_ros import dds
from wam_ros.contract import Contract, ContractError, load_contract
from wam_ros.contract.data import FloatArray
from wam_ros.execution import Executor, Mode, Settings
from wam_ros.execution.clearance import Space
from wam_ros.execution.clock import ClockMap
from wam_ros.execution.outputs import channels, undriven
from wam_ros.msg import ActionChunk as ActionChunkMsg
from wam_ros.msg import ExecutorState, PolicyState
from wam_ros.nodes.control_loop import ControlLoop, make_others_fifo, may_fifo
from wam_ros.nodes.convert import chunk_from_msg
from wam_ros.nodes.executor_report import diagnostics, state_message, timing_of
from wam_ros.nodes.lifecycle import AutostartNode, run
from wam_ros.nodes.mailbox import Mailbox, Unspun
from wam_ros.nodes.parameters import declare
from wam_ros.nodes.publishers import command_publisher
from wam_ros.nodes.qos import LATCHED, RELIABLE
from wam_ros.nodes.scheduling import short_slice
from wam_ros.nodes.sources import poll_states
from wam_ros.nodes.words import Words
from wam_ros.perception.joints import JointError, read
from wam_ros.resources import share
from wam_ros.sim.urdf import expand

EVERY_PRESS = QoSProfile(
    depth=20, durability=DurabilityPolicy.TRANSIENT_LOCAL, reliability=ReliabilityPolicy.RELIABLE
)
"""A release that follows at once must not hide that the button was pressed."""
_CHUNK_EVERY = 10
"""Ticks between two looks for a chunk: a flood of chunks costs at most one in 20 ms."""
_BURST = 25  # control cycles walked at once on a simulated clock, at most
_STATE_PERIOD, _NEWS_PERIOD = 0.1, 0.02
"""Seconds between two states, and at least when the mode or its reason has changed."""
PRIORITY = 50  # below the kernel's interrupt threads on PREEMPT_RT, above everything ordinary
_GENTLE = 4.0  # s; twice what the slowest joint of the shipped robots needs for a gentle stop
_TUNABLE = ("smoothing", "fade", "ensemble", "savgol", "reanchor_cap", "slowest")


class ExecutorNode(AutostartNode):
    """Feeds the execution core from topics and publishes what it commands.

    The loop runs from the start, disarmed: it listens for the e-stop and reports. Arming is
    possible while active only. Deactivated, it comes to a gentle hold, then disarms; activated
    again, it waits for `arm`.
    """

    def __init__(self) -> None:
        super().__init__("executor")
        p = self._declare()
        self.contract = load_contract(p["robot"])
        self._sim = bool(p["sim"])
        self._auto_arm = bool(p["armed"]) and self._sim
        if p["armed"] and not self._sim:
            self.get_logger().warning("armed:=true is honoured in simulation only; call ~/arm")
        self._core = Executor(
            self.contract, Settings(**{k: p[k] for k in _TUNABLE}), _space(self.contract)
        )
        deadman = float(p["deadman"])
        self._deadman = deadman if deadman > 0.0 else self.contract.safety.deadman
        self._last_beat = -np.inf  # monotonic: how long ago, whatever the clocks do
        self._pressed = False
        self._talking = False
        self._log: deque[tuple[str, str]] = deque(maxlen=50)
        self._clock_map = ClockMap(self._ros(), time.monotonic())
        self._channels = [
            (c, command_publisher(self, self._core, c))
            for c in channels(self.contract, self._core, self._sim)
        ]
        left = undriven([c for c, _ in self._channels], self._core)
        if left:
            self._core.leave_alone(left)
            self.get_logger().warning(f"no output drives {', '.join(left)}: they stay")
        self._inputs()
        self._interfaces()
        self._period = 1.0 / self.contract.rates.control
        self._state_every = max(1, round(_STATE_PERIOD / self._period))
        self._news_every = max(1, round(_NEWS_PERIOD / self._period))
        self._sim_tick = -np.inf
        self._sim_count = 0
        self._next_chunk = 0
        priority = self._priority(int(p["rt_priority"]))
        self._loop = ControlLoop(self._tick, self._period, priority, self._fault)
        self._loop.start()
        if priority > 1:
            make_others_fifo(priority - 1, self._loop)

    def _declare(self) -> dict[str, Any]:
        defaults: dict[str, Any] = {
            "robot": "agibot_g1",
            "sim": False,
            "armed": False,
            "rt_priority": 0,
            "deadman": 0.0,
            **{k: getattr(Settings, k) for k in _TUNABLE},
        }
        return declare(self, defaults)

    def _priority(self, wanted: int) -> int:
        """SCHED_FIFO priority to run with; a negative one asks for the usual if it is allowed."""
        if wanted >= 0:
            return wanted
        if may_fifo(PRIORITY):
            self.get_logger().info(f"the control loop runs under SCHED_FIFO {PRIORITY}")
            return PRIORITY
        self.get_logger().info(
            "the control loop runs under the ordinary scheduler: this user may not use SCHED_FIFO; "
            "`wam doctor` prints the limits file that allows it"
        )
        return 0

    def _inputs(self) -> None:
        """What the control loop reads by itself."""
        group = Unspun()
        self._states = poll_states(self, group, self.contract, self._sim)
        self._chunks = Mailbox(self, group, ActionChunkMsg, "action_chunk", RELIABLE)
        self._estops = Mailbox(self, group, Bool, "estop", EVERY_PRESS)
        self._instructions = Mailbox(self, group, String, "instruction", RELIABLE)
        self._policies = Mailbox(self, group, PolicyState, "policy_state", LATCHED)
        self._words = Words(time.time_ns())
        self._beats = Mailbox(self, group, Empty, "heartbeat", RELIABLE)

    def _interfaces(self) -> None:
        self.create_service(SetBool, "arm", self._on_arm)
        self.create_service(Trigger, "hold", self._on_hold)
        self.create_service(Trigger, "reset", self._on_reset)
        self.create_service(Trigger, "estop", self._on_estop)
        self._state_pub = self.create_publisher(ExecutorState, "executor_state", LATCHED)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        # Every wake-up of this side takes a millisecond and can hold the interpreter when the loop
        # is due. So the loop publishes the state by itself, and this side wakes once a second.
        self._timing: tuple[float, ...] = (0.0,) * 5
        self._published: tuple[Any, ...] = ()
        self._next_state = self._next_news = 0
        self.create_timer(1.0, self._on_timer)
        self._logged = self.create_guard_condition(self._write_log)

    # ---- the loop's work -----------------------------------------------------------------------

    def _ros(self) -> float:
        return float(self.get_clock().now().nanoseconds) * 1e-9

    def _now(self) -> float:
        if self.get_clock().ros_time_is_active:
            return self._ros()
        return self._clock_map.ros(time.monotonic())

    def _tick(self, tick: int, monotonic: float) -> None:
        try:
            self._work(tick, monotonic)
        finally:  # what went wrong is told, too
            self._report(tick)

    def _work(self, tick: int, monotonic: float) -> None:
        if self.get_clock().ros_time_is_active:
            self._simulated_tick(tick)
            return
        if tick % 50 == 0 and self._clock_jumped():
            self._core.clock_jumped("ROS time jumped")
        now = self._clock_map.ros(monotonic)
        self._read(tick, now)
        self._send(self._core.tick(now), now, (tick,))

    def _clock_jumped(self) -> bool:
        before = time.monotonic()
        ros = self._ros()
        after = time.monotonic()
        if after - before > 0.01:  # held up between the two: that is no jump
            return False
        return self._clock_map.update(ros, 0.5 * (before + after))

    def _simulated_tick(self, tick: int) -> None:
        """Walk as many periods as /clock has moved on by: it comes in steps of several."""
        now = self._ros()
        since = now - self._sim_tick
        if 0.0 <= since < 0.99 * self._period:
            return
        if not 0.0 <= since <= 0.5:
            if np.isfinite(since):
                self._core.clock_jumped("ROS time jumped")
            self._sim_tick = now - self._period
            since = self._period
        self._read(tick, now)
        passed = int(since / self._period + 0.01)
        # /clock that came late: walked in one go, the reference would leave behind an arm that has
        # heard nothing meanwhile. Cycles beyond a few are skipped, as on the system's clock.
        count = min(passed, _BURST)
        self._sim_tick += (passed - count) * self._period
        self._sim_count += passed - count
        command = None
        for _ in range(count):
            self._sim_tick += self._period
            command = self._core.tick(self._sim_tick)
        first = self._sim_count
        self._sim_count += count
        self._send(command, self._sim_tick, range(first, self._sim_count))

    def _send(self, command: FloatArray | None, now: float, ticks: Iterable[int]) -> None:
        """Send on every channel that is due in one of ``ticks``."""
        if command is None:
            for channel, send in self._channels:
                if channel.velocity and self._talking:  # a base must not keep the last speed
                    send(self._core, self._core.reference, now)
                channel.forget()
            self._talking = False
            return
        self._talking = True
        error: Exception | None = None
        for channel, send in self._channels:
            if any(channel.due(t) for t in ticks):
                try:
                    send(self._core, command, now)
                except Exception as err:  # the other outputs must have their stop all the same
                    error = err
        if error is not None:
            raise error

    def _read(self, tick: int, now: float) -> None:
        core = self._core
        for source, box in self._states:
            message = box.take()
            if message is not None:
                try:
                    core.set_measured(read(message, source), now)
                except JointError as err:
                    self._say("error", str(err))
        self._read_estop()
        self._read_instruction()
        if self._deadman > 0.0:
            self._mind_deadman()
        if self._auto_arm and core.mode is Mode.ESTOPPED:
            self._auto_arm = False  # whoever stopped it arms it
        if self._auto_arm and self._active:
            if self._deadman > 0.0 and self._silent_operator():
                core.reason = f"no heartbeat for {self._deadman} s"
            elif not core.arm(now):
                self._auto_arm = False
        # Not in the tick that checks distances: each of the two costs half a millisecond.
        if tick >= self._next_chunk and core.light_tick:
            message = self._chunks.take()
            if message is not None:
                self._next_chunk = tick + _CHUNK_EVERY
                self._take_chunk(message, now)

    def _read_instruction(self) -> None:
        found = self._instructions.take_stamped()
        text = None if found is None else self._words.said(*found)
        # As below: reading takes a fifth of a millisecond, and this one is in no hurry.
        if text is None and self._core.light_tick:
            state = self._policies.take()
            text = None if state is None else self._words.echoed(state)
        if text:
            self._core.resume()
        elif text is not None:
            self._core.pause("instruction is empty")

    def _read_estop(self) -> None:
        for message in self._estops.take_all():
            self._pressed = bool(message.data)
            if self._pressed and self._core.mode is not Mode.ESTOPPED:
                self._core.estop("e-stop pressed")
                self._say("error", "e-stop: latched until reset")

    def _report(self, tick: int) -> None:
        """Publish the state when it is due, or when there is news."""
        core = self._core
        seen = (core.mode, core.reason, core.counters.rejected > 0)
        news = seen != self._published and tick >= self._next_news
        late = tick - self._next_state
        # Better not in one tick with a chunk or a check of distances, which take long themselves.
        light = core.light_tick and tick != self._next_chunk - _CHUNK_EVERY
        if news or (late >= 0 and light) or late >= _CHUNK_EVERY:
            self._published = seen
            self._next_state, self._next_news = tick + self._state_every, tick + self._news_every
            self._state_pub.publish(state_message(core, self._loop, self._timing, self._now()))

    def _take_chunk(self, message: Any, now: float) -> None:
        try:
            reason = self._core.submit(chunk_from_msg(message), now)
        except ValueError as err:
            reason = str(err)
            self._core.reject(reason)
        if reason:
            self._say("warning", reason)

    def _mind_deadman(self) -> None:
        if self._beats.take() is not None:
            self._last_beat = time.monotonic()
        if self._silent_operator():
            self._core.stop_and_disarm(f"no heartbeat for {self._deadman} s")

    def _silent_operator(self) -> bool:
        return time.monotonic() - self._last_beat > self._deadman

    def _say(self, level: str, text: str) -> None:
        # Logging publishes on /rosout; the ROS executor does it, not the loop.
        if not self._log or self._log[-1] != (level, text):
            self._log.append((level, text))
            self._logged.trigger()

    def _fault(self, reason: str) -> None:
        """A tick raised: come to rest on what was sent before, and latch."""
        self._core.estop(f"fault in the executor: {reason}")
        self._say("error", self._core.reason)

    # ---- services ------------------------------------------------------------------------------

    def _on_arm(self, request: Any, response: Any) -> Any:
        def arm() -> str:
            if not request.data:
                self._core.disarm("disarmed by request")
                return ""
            if not self._active:
                return "the executor is not active: activate it first (lifecycle)"
            if self._deadman > 0.0 and self._silent_operator():
                return f"no heartbeat on `heartbeat` in the last {self._deadman} s"
            self._read_instruction()  # what was said before must not count as said after
            refused = self._core.arm(self._now())
            if not refused:
                self._words.mark()
            return refused

        reason = self._ask(arm, late=not request.data)
        return self._answer(response, reason, "armed" if request.data else "disarmed")

    def _ask(self, request: Callable[[], Any], late: bool = False) -> str:
        """Have the loop do it between two ticks; why that failed, or ''. Stops may come late."""
        try:
            return str(self._loop.ask(request, late=late) or "")
        except TimeoutError as err:
            return str(err)
        except Exception as err:  # the loop has latched it already
            return f"fault in the executor: {type(err).__name__}: {err}"

    def _answer(self, response: Any, reason: str, done: str) -> Any:
        response.success, response.message = not reason, reason or done
        return response

    def _on_hold(self, _: Any, response: Any) -> Any:
        def pause() -> None:
            self._read_instruction()
            self._words.mark()
            self._core.pause("hold service called")

        reason = self._ask(pause, True)
        return self._answer(response, reason, "holding until an instruction is given, or `arm`")

    def _on_reset(self, _: Any, response: Any) -> Any:
        def reset() -> str:
            self._read_estop()
            if self._pressed:
                return "the e-stop is still pressed: publish false on `estop` first"
            return self._core.reset()

        reason = self._ask(reset)
        return self._answer(response, reason, self._core.reason)

    def _on_estop(self, _: Any, response: Any) -> Any:
        reason = self._ask(lambda: self._core.estop("e-stop service called"), True)
        return self._answer(response, reason, "stopped and latched; call reset, then arm")

    # ---- telemetry -----------------------------------------------------------------------------

    def _on_timer(self) -> None:
        self._timing = timing_of(self._loop)
        self._diagnostics.publish(
            diagnostics(self, self._core, self._loop, self._timing, self._now())
        )
        # The loop switched collection off; what ROS leaves behind is young, collected here.
        gc.collect(1)

    def _write_log(self) -> None:
        while self._log:
            level, text = self._log.popleft()
            # One call site each: rclpy throttles by the place in the source.
            if level == "error":
                self.get_logger().error(text, throttle_duration_sec=1.0)
            else:
                self.get_logger().warning(text, throttle_duration_sec=1.0)

    # ---- lifecycle -----------------------------------------------------------------------------

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Come to a gentle hold, then disarm: nothing is sent any more."""
        done = super().on_deactivate(state)
        self._retire("deactivated")
        return done

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Likewise, from whatever state."""
        self._active = False
        self._retire("shut down")
        return TransitionCallbackReturn.SUCCESS

    def _retire(self, reason: str) -> None:
        """Wait until the core has come to rest, taking no chunk, and is disarmed."""
        with contextlib.suppress(TimeoutError):
            stop = partial(self._core.stop_and_disarm, reason, gently=True)
            self._loop.ask(stop, late=True)
        end = time.monotonic() + _GENTLE
        while time.monotonic() < end:
            told = not (self._talking and self._core.base.names)  # a base gets a last zero
            if told and (self._core.mode is Mode.DISARMED or self._core.at_rest):
                break
            time.sleep(0.01)

    def shut_down(self) -> None:
        """Come to rest and end the loop."""
        self._active = False
        self._retire("shutting down")
        self._loop.end()


def _space(contract: Contract) -> Space:
    path = Path(contract.urdf)
    return Space(contract, expand(path if path.is_absolute() else share() / path))


def main() -> int:
    """Run until interrupted; 2 when the contract cannot be used."""
    # The control thread must not wait the default 5 ms for another thread to yield.
    sys.setswitchinterval(0.00002)
    dds.leave_shared_memory()  # it sends a few kilobytes, and must not wait for who has died
    short_slice()  # nor a time slice of another process, where the loop has no real-time priority
    return run(ExecutorNode, "executor", (ContractError, ValueError))


if __name__ == "__main__":
    sys.exit(main())
