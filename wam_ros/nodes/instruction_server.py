"""The action `run_instruction`: an instruction with an end, beside the topic that has none.

Lives in the policy node, which owns the instruction. Nothing here waits: a goal's coroutine sleeps
on a future, and a timer looks at the graph ten times a second.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from rclpy.action import ActionServer, CancelResponse
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.task import Future
from std_msgs.msg import String
from std_srvs.srv import Trigger

from wam_ros.action import RunInstruction
from wam_ros.msg import SimState
from wam_ros.policy.task_run import InstructionRun, Outcome, Settings, Sight

_PERIOD = 0.1
_OWN = 1_000_000_000
"""Our own word on the topic is stamped this long (ns) after we said it, at most."""


class InstructionServer:
    """One goal at a time; a newer one takes over.

    Parameters
    ----------
    node
        The policy node.
    look
        What the policy node knows; this side fills in time and judge.
    take
        Puts an instruction in force, at once; said at that wall clock, ns since 1970.
    """

    def __init__(
        self,
        node: Node,
        look: Callable[[], Sight],
        take: Callable[[str, int], None],
        settings: Settings,
    ) -> None:
        self._node, self._look, self._take = node, look, take
        self._settings = settings
        self._run: InstructionRun | None = None
        self._goal: Any = None
        self._done: Any = None
        self._judge: Any = None
        self._said: deque[tuple[str, int]] = deque(maxlen=32)
        self._out = node.create_publisher(String, "instruction", 10)
        node.create_subscription(SimState, "sim/state", self._on_judge, 10)
        node.create_service(Trigger, "confirm_success", self._on_confirm)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = node.create_timer(_PERIOD, self._tick, clock=steady, autostart=False)
        self._server = ActionServer(
            node, RunInstruction, "run_instruction", self._execute,
            cancel_callback=self._on_cancel,
        )  # fmt: skip

    def echoes(self, text: str, said_at: int) -> bool:
        """Whether this message on the topic is our own word, which has been in force already.

        However late it is read: something else may be in force by then. ``said_at`` is the
        middleware's time of it, ns since 1970.
        """
        for word in self._said:
            if word[0] == text and 0 <= said_at - word[1] <= _OWN:
                self._said.remove(word)
                return True
        return False

    def end(self, outcome: Outcome, message: str) -> None:
        """End the goal there is, if any."""
        if self._run is not None:
            self._run.end(outcome, message)
            self._finish()

    def shut_down(self) -> None:
        """End the goal and send its result: no one else would tell the client."""
        self.end(Outcome.ERROR, "the policy node ends")
        for _ in range(3):
            if self._node.executor is not None:
                self._node.executor.spin_once(timeout_sec=0.02)

    # ---- a goal --------------------------------------------------------------------------------

    async def _execute(self, goal: Any) -> Any:
        text, deadline = goal.request.instruction.strip(), float(goal.request.deadline)
        run = InstructionRun(text, deadline, self._sight(), self._settings)
        if not text or not math.isfinite(deadline) or deadline < 0:
            run.end(Outcome.REFUSED, "name an instruction, and a deadline of 0 s (none) or more")
        else:
            self.end(Outcome.PREEMPTED, f"a newer goal took over: '{text}'")
            self._run, self._goal, self._done = run, goal, Future()
            self._judge = None
            self._timer.reset()
            self._put(text)
            await self._done
        if run.outcome is Outcome.SUCCEEDED:
            goal.succeed()
        elif goal.is_cancel_requested:
            goal.canceled()
        else:
            goal.abort()
        assert run.outcome is not None
        return RunInstruction.Result(
            outcome=int(run.outcome), message=run.message, duration=run.elapsed
        )

    def _put(self, text: str) -> None:
        """Put ``text`` in force here, and tell executor, simulation and recorder."""
        said_at = time.time_ns()
        self._said.append((text, said_at))
        self._out.publish(String(data=text))
        self._take(text, said_at)

    def _finish(self) -> None:
        run, done = self._run, self._done
        assert run is not None and run.outcome is not None
        self._timer.cancel()
        self._run = None
        self._node.get_logger().info(
            f"'{run.instruction}': {run.outcome.name.lower()} after {run.elapsed:.1f} s: "
            f"{run.message}"
        )
        # A newer goal puts its own instruction in force; the arm need not stop in between.
        if run.outcome is not Outcome.PREEMPTED and self._look().instruction == run.instruction:
            self._put("")
        done.set_result(True)

    # ---- looking -------------------------------------------------------------------------------

    def _sight(self) -> Sight:
        clock = self._node.get_clock()
        simulated = clock.ros_time_is_active
        now = clock.now().nanoseconds * 1e-9 if simulated else time.monotonic()
        judge, run = self._judge, self._run
        judged = judge is not None and run is not None and judge.task == run.instruction
        sight = replace(self._look(), time=now, judged=judged)
        if judged:
            sight = replace(sight, success=bool(judge.success), progress=float(judge.progress))
        return sight

    def _tick(self) -> None:
        run = self._run
        if run is None:
            return
        run.update(self._sight())
        self._goal.publish_feedback(
            RunInstruction.Feedback(
                elapsed=run.elapsed,
                progress=run.progress,
                idle=run.idle,
                status=run.status,
                chunks=run.chunks,
            )
        )
        if run.outcome is not None:
            self._finish()

    def _on_judge(self, message: Any) -> None:
        self._judge = message
        # It may say so for half a second only, in which this node is held up.
        if self._run is not None and message.task == self._run.instruction and not message.success:
            self._run.not_yet()

    # ---- requests ------------------------------------------------------------------------------

    def _on_cancel(self, goal: Any) -> CancelResponse:
        if self._run is not None and goal == self._goal:
            self.end(Outcome.CANCELLED, "cancelled by the client")
        return CancelResponse.ACCEPT

    def _on_confirm(self, _: Any, response: Any) -> Any:
        """The operator says that it is done; where no judge exists, nobody else can."""
        response.success = self._run is not None
        response.message = "no goal of run_instruction is running"
        if self._run is not None:
            response.message = f"'{self._run.instruction}' counts as succeeded"
            self.end(Outcome.SUCCEEDED, "confirmed by the operator")
        return response
