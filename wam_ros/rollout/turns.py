"""When the policy is called and when its answer arrives: the policy node's work in virtual time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from wam_ros.contract.data import ActionChunk, FloatArray, Observation
from wam_ros.contract.model import Contract
from wam_ros.execution.settings import WARM_UP
from wam_ros.policy.base import Afterthought, Policy, PolicyError, Window, frame_rows
from wam_ros.policy.cadence import Latency, Scheduler
from wam_ros.policy.frames import FrameBuffer

LatencyModel = str | float | Callable[[np.random.Generator], float]
"""``"measured"``, seconds, or a function that draws seconds."""

MAX_OBSERVATION_AGE = 0.5
_PATIENCE = 3
"""Errors in a row after which the policy counts as having given up."""
_KNOWN = 20
_NEW_INSTRUCTION = 2  # ActionChunk.CONTEXT_NEW_INSTRUCTION
FIRST = _NEW_INSTRUCTION | WARM_UP


@dataclass
class Answer:
    """A chunk on its way."""

    due: float
    called: float
    latency: float
    chunk: ActionChunk
    frames: int
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
    _instruction: str = ""
    _fresh: bool = False
    _waiting: bool = False
    _sequence: int = 0
    _called_with: float = -np.inf
    _resting: bool = True
    _frames: FrameBuffer = field(init=False)
    _scheduler: Scheduler = field(init=False)

    def __post_init__(self) -> None:
        rates = self.contract.rates
        self._frames = FrameBuffer(rates.step_period * rates.video_stride)
        self._scheduler = Scheduler(self.cadence, rates.horizon * rates.step_period, self.period)
        if self.latency != "measured":
            self.known = Latency()
            for _ in range(_KNOWN):
                self.known.add(self._cost(0.0))

    def say(self, instruction: str) -> None:
        """Take a new instruction; an answer to the old one is dropped when it arrives."""
        self._instruction, self._fresh = instruction, True
        self.error, self._errors, self._waiting = "", 0, bool(instruction)
        self._scheduler.reset()

    def see(self, observation: Observation) -> None:
        """Take an observation."""
        self._frames.push(observation)

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
        newest = self._frames.newest
        if not self._waiting or self.pending is not None or newest is None:
            return
        if now - newest.t0 > MAX_OBSERVATION_AGE or newest.t0 <= self._called_with:
            return
        self._resting = resting
        # What the first call of all took is no reason to leave the cadence asked for.
        expected = self.known.expected(0.4 * self._scheduler.horizon)
        decision = self._scheduler.decide(now, expected, resting)
        if not decision.call:
            return
        self._scheduler.called(now)
        self._called_with = newest.t0
        period = self.contract.rates.step_period
        window = Window(
            self._frames.at([row * period for row in frame_rows(self.policy)]),
            objects() if self.policy.needs_objects else {},
            progress[1] if progress[0] == self._sequence else 0.0,
            decision.cadence,
        )
        self._call(window, now)

    def _call(self, window: Window, now: float) -> None:
        fresh, self._fresh = self._fresh, False
        if self.latency == "measured" and not self.policy.needs_objects:
            for frame in window.frames:  # drawing is the simulation's work, not the model's
                dict(frame.views)
        begin = time.perf_counter()
        try:
            if fresh:
                self.policy.reset(self._instruction)
            chunk = self.policy.infer(window)
        except ValueError as err:
            self.error, self._waiting = str(err), False
            return
        except PolicyError as err:
            self._fresh = True
            self._errors += 1
            if self._errors >= _PATIENCE:
                self.error, self._waiting = str(err), False
            return
        self._errors = 0
        cost = self._cost(time.perf_counter() - begin)
        chunk = replace(
            chunk,
            sequence=self._sequence + 1,
            inference_start=now,
            inference_end=now + cost,
            instruction=self._instruction,
            cadence=window.cadence,
            context_flags=chunk.context_flags | (FIRST if fresh else 0),
        )
        thought = getattr(self.policy, "imagine", lambda: None)()
        self.pending = Answer(now + cost, now, cost, chunk, len(window.frames), thought)

    def _cost(self, measured: float) -> float:
        if callable(self.latency):
            return float(self.latency(self.rng))
        return measured if self.latency == "measured" else float(self.latency)

    def take(self, now: float) -> Answer | None:
        """The answer that has arrived by ``now``, unless the instruction changed meanwhile."""
        answer = self.pending
        if answer is None or answer.due > now + 1e-9:
            return None
        self.pending = None
        if answer.chunk.instruction != self._instruction:
            return None
        chunk = answer.chunk
        first = bool(chunk.context_flags & WARM_UP)
        self.known.add(answer.latency, warm_up=first)
        self._sequence = chunk.sequence
        # There the executor starts the rows on arrival; see Executor.
        on_arrival = chunk.cadence == "sync" or (self._resting and first)
        late = now - chunk.t0 if on_arrival else 0.0
        self._scheduler.horizon = chunk.horizon * chunk.step_period
        self._scheduler.delivered(chunk.t_end + late)
        return answer
