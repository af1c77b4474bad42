"""The client's side of `run_instruction`."""

from __future__ import annotations

import time
from typing import Any

from rclpy.action import ActionClient

from wam_ros.action import RunInstruction
from wam_ros.nodes.client import GraphClient
from wam_ros.policy.task_run import Outcome

_SILENCE = 5.0


class RunGoal:
    """One goal, sent with ``client``'s node; ``client.spin`` moves it along.

    Attributes
    ----------
    feedback
        Newest feedback message, or None.
    """

    def __init__(self, client: GraphClient) -> None:
        self._client = client
        self._action = ActionClient(client._node, RunInstruction, "run_instruction")
        self.feedback: Any = None
        self._heard = time.monotonic()
        self._goal: Any = None
        self._result: Any = None

    def send(self, instruction: str, deadline: float = 0.0, seconds: float = 5.0) -> bool:
        """Start the run; ``deadline`` in seconds, 0 for none. True once it was accepted."""
        end = time.monotonic() + seconds
        while not self._action.server_is_ready():
            if time.monotonic() > end:
                return False
            self._client.spin(0.05)
        request = RunInstruction.Goal(instruction=instruction, deadline=deadline)
        asked = self._action.send_goal_async(request, feedback_callback=self._on_feedback)
        while not asked.done():
            if time.monotonic() > end:
                return False
            self._client.spin(0.02)
        self._goal, self._heard = asked.result(), time.monotonic()
        if self._goal.accepted:
            self._result = self._goal.get_result_async()
        return bool(self._goal.accepted)

    def _on_feedback(self, message: Any) -> None:
        self.feedback, self._heard = message.feedback, time.monotonic()

    @property
    def result(self) -> Any:
        """The result message, or None while it runs."""
        return self._result.result().result if self._result and self._result.done() else None

    @property
    def outcome(self) -> Outcome | None:
        """How it ended, or None while it runs."""
        return None if self.result is None else Outcome(self.result.outcome)

    @property
    def lost(self) -> bool:
        """Whether the policy node went away: it would have said something every 0.1 s."""
        return self.result is None and time.monotonic() - self._heard > _SILENCE

    def cancel(self, seconds: float = 3.0) -> bool:
        """Cancel and wait for the result; True once it is here."""
        end = time.monotonic() + seconds
        self._goal.cancel_goal_async()
        while self.result is None and time.monotonic() < end:
            self._client.spin(0.02)
        return self.result is not None

    def give_up(self) -> None:
        """Have the arm hold although the policy does not answer: nobody knows what it will do.

        The executor refuses the chunks of a policy that comes to later, until somebody gives an
        instruction.
        """
        if self._goal is not None and self._goal.accepted:
            self._goal.cancel_goal_async()
        self._client.tell("")
        self._client.spin(0.3)

    def close(self) -> None:
        """Forget the goal; one that still runs goes on."""
        self._action.destroy()
