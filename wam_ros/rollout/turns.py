"""When the policy is called and when its answer arrives: the policy node's work in virtual time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from wam_ros.contract.data import ActionChunk, FloatArray, Observation
from wam_ros.contract.model import Contract
from wam_ros.execution.settings import WARM_UP
from wam_ros.policy.base import Afterthought, Policy, PolicyError
from wam_ros.policy.cadence import Latency
from wam_ros.policy.turn import Call, Turn

LatencyModel = str | float | Callable[[np.random.Generator], float]
"""``"measured"``, seconds, or a function that draws seconds."""

_PATIENCE = 3
"""Errors in a row after which the policy counts as having given up."""
_KNOWN = 20


@dataclass
class Answer:
    """A chunk on its way."""

    due: float
    called: float
    latency: float
    chunk: ActionChunk
    call: Call
    thought: Afterthought | None


@dataclass
class Turns:
    """Calls a policy by its cadence, one call at a time.

    Parameters
    ----------
    contract, policy
        The policy is configured already.
    cadence
        sync, async or sliding.
    period
        Seconds between calls in ``sliding``.
    latency
        What a call costs in virtual time, see `LatencyModel`.
    known
        Latencies of earlier episodes, for ``"measured"``: a node that has been up for a while
        knows how long its model takes.
    rng
        Draws latencies.
    """

    contract: Contract
    policy: Policy
    cadence: str
    period: float
    latency: LatencyModel
    known: Latency
    rng: np.random.Generator
    error: str = ""
    pending: Answer | None = None
    _errors: int = 0
    _waiting: bool = False
    _turn: Turn = field(init=False)

    def __post_init__(self) -> None:
        if self.latency != "measured":
            self.known = Latency()
            for _ in range(_KNOWN):
                self.known.add(self._cost(0.0))
        self._turn = Turn(self.contract, self.cadence, self.period, self.known)

    def say(self, instruction: str) -> None:
        """Take a new instruction; an answer to the old one is dropped when it arrives."""
        self._turn.say(instruction)
        self.error, self._errors, self._waiting = "", 0, bool(instruction)

    def see(self, observation: Observation) -> None:
        """Take an observation."""
        self._turn.see(observation)

    def tick(
        self,
        now: float,
        resting: bool,
        progress: tuple[int, float, float],
        objects: Callable[[], dict[str, FloatArray]],
    ) -> None:
        """Call the policy when its turn has come; the answer becomes `pending`.

        ``resting`` and ``progress`` (chunk sequence, rows consumed, seconds left) are the
        executor's; ``objects`` gives true centres, asked for only when the policy wants them.
        """
        self._turn.progress.tell(now, *progress[:2], 0.0 if resting else 1.0)
        if not self._waiting or self.pending is not None:
            return
        decision = self._turn.begin(now, resting)
        if decision is None:
            return
        known = objects() if self.policy.needs_objects else {}
        self._call(self._turn.call(self.policy, known, decision.cadence), now)

    def _call(self, call: Call, now: float) -> None:
        window = call.window
        if self.latency == "measured" and not self.policy.needs_objects:
            for frame in window.frames:  # drawing is the simulation's work, not the model's
                dict(frame.views)
        begin = time.perf_counter()
        try:
            if call.fresh:
                self.policy.reset(call.instruction)
            chunk = self.policy.infer(window)
        except ValueError as err:
            self.error, self._waiting = str(err), False
            return
        except PolicyError as err:
            self._turn.fresh = True
            self._errors += 1
            if self._errors >= _PATIENCE:
                self.error, self._waiting = str(err), False
            return
        self._errors = 0
        cost = self._cost(time.perf_counter() - begin)
        chunk = self._turn.stamp(chunk, call, now, now + cost)
        thought = getattr(self.policy, "imagine", lambda: None)()
        self.pending = Answer(now + cost, now, cost, chunk, call, thought)

    def _cost(self, measured: float) -> float:
        if callable(self.latency):
            return float(self.latency(self.rng))
        return measured if self.latency == "measured" else float(self.latency)

    def take(self, now: float, resting: bool) -> Answer | None:
        """The answer that has arrived by ``now``, unless the instruction changed meanwhile.

        ``resting`` says that the executor holds or is disarmed now.
        """
        answer = self.pending
        if answer is None or answer.due > now + 1e-9:
            return None
        self.pending = None
        if not self._turn.answers(answer.call):
            return None
        self.known.add(answer.latency, warm_up=bool(answer.chunk.context_flags & WARM_UP))
        self._turn.deliver(answer.chunk, now, resting)
        return answer
