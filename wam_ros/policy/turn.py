"""From a policy's turn to its answer: what the policy node and a rollout do alike, without ROS.

Who calls (a worker thread, or virtual time) and what an error means stays with them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from wam_ros.contract.data import ActionChunk, FloatArray, Observation
from wam_ros.contract.model import Contract
from wam_ros.execution.settings import WARM_UP
from wam_ros.policy.base import Policy, Window, frame_rows
from wam_ros.policy.cadence import Decision, Latency, Scheduler
from wam_ros.policy.frames import FrameBuffer
from wam_ros.policy.progress import Progress

MAX_OBSERVATION_AGE = 0.5
"""An older observation (s) is not shown to a policy."""
_NEW_INSTRUCTION = 2  # ActionChunk.CONTEXT_NEW_INSTRUCTION
FIRST = _NEW_INSTRUCTION | WARM_UP
"""Context flags of the first chunk of an instruction."""


@dataclass(frozen=True)
class Call:
    """A call to make: what is shown, for which instruction, and whether to reset before it."""

    window: Window
    instruction: str
    fresh: bool
    said: int = 0
    """Number of the instruction, as the same words may be said again."""


@dataclass
class Turn:
    """Whose turn it is, and the bookkeeping around one call after the other.

    Parameters
    ----------
    contract
        Gives the times of rows and frames.
    cadence
        sync, async or sliding; ValueError for anything else.
    period
        Seconds between calls in ``sliding``.
    latency
        Inference times known so far.

    Attributes
    ----------
    instruction
        The one in force.
    fresh
        The next call resets the policy first.
    sequence
        Number of the last chunk delivered.
    progress
        What the executor tells about the rows it has consumed.
    """

    contract: Contract
    cadence: str
    period: float
    latency: Latency = field(default_factory=Latency)
    instruction: str = ""
    fresh: bool = False
    sequence: int = 0
    frames: FrameBuffer = field(init=False)
    progress: Progress = field(init=False)
    scheduler: Scheduler = field(init=False)
    _called_with: float = field(init=False, default=float("-inf"))
    _said: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        rates = self.contract.rates
        self.frames = FrameBuffer(rates.step_period * rates.video_stride)
        self.progress = Progress(rates.step_period)
        self.scheduler = Scheduler(self.cadence, rates.horizon * rates.step_period, self.period)

    def say(self, instruction: str) -> None:
        """Put an instruction in force; the next call is its first."""
        self.instruction, self.fresh = instruction, True
        self._said += 1
        self.scheduler.reset()

    def see(self, observation: Observation) -> None:
        """Take an observation; one a second or more older than the last means a new clock."""
        newest = self.frames.newest
        if newest is not None and observation.t0 < newest.t0 - 1.0:
            self.frames.clear()
            self._called_with = float("-inf")
            self.scheduler.reset()  # what it knows are times of the old clock
        self.frames.push(observation)

    @property
    def expected(self) -> float:
        """Seconds to plan the next call with."""
        # What the first call of all took is no reason to leave the cadence asked for.
        return self.latency.expected(0.4 * self.scheduler.horizon)

    def begin(self, now: float, resting: bool) -> Decision | None:
        """Start a call if it is due and there is something new to show; else None.

        ``resting`` says that the executor holds or is disarmed.
        """
        newest = self.frames.newest
        if newest is None or now - newest.t0 > MAX_OBSERVATION_AGE:
            return None
        if newest.t0 <= self._called_with:  # a model must not be shown the same frame twice
            return None
        decision = self.scheduler.decide(now, self.expected, resting)
        if not decision.call:
            return None
        self.scheduler.called(now)
        self._called_with = newest.t0
        return decision

    def call(self, policy: Policy | None, objects: dict[str, FloatArray], cadence: str) -> Call:
        """The call that `begin` started."""
        period = self.contract.rates.step_period
        frames = self.frames.at([row * period for row in frame_rows(policy)])
        # Rows of an older chunk say nothing about the last one, which may have been refused.
        rows = self.progress.at(self.sequence, [f.t0 for f in frames])
        executed = max(rows[-1], 0.0) if rows else 0.0
        fresh, self.fresh = self.fresh, False
        window = Window(frames, objects, executed, cadence, rows)
        return Call(window, self.instruction, fresh, self._said)

    def answers(self, call: Call) -> bool:
        """Whether ``call`` was made for the instruction that is in force."""
        return call.said == self._said

    def stamp(self, chunk: ActionChunk, call: Call, begin: float, end: float) -> ActionChunk:
        """Fill in what the policy leaves to its caller; ``begin`` and ``end`` of inference in s."""
        return replace(
            chunk,
            sequence=self.sequence + 1,
            inference_start=begin,
            inference_end=end,
            instruction=call.instruction,
            cadence=call.window.cadence,
            context_flags=chunk.context_flags | (FIRST if call.fresh else 0),
        )

    def deliver(self, chunk: ActionChunk, now: float, resting: bool) -> float:
        """Note that a chunk goes out; returns by how many seconds its rows run behind its stamps.

        ``resting`` is what is known of the executor that starts the rows.
        """
        self.sequence = chunk.sequence
        # There the executor starts the rows on arrival; see Executor.
        on_arrival = chunk.cadence == "sync" or (resting and bool(chunk.context_flags & WARM_UP))
        late = now - chunk.t0 if on_arrival else 0.0
        self.scheduler.horizon = chunk.horizon * chunk.step_period
        self.scheduler.delivered(chunk.t_end + late)
        return late
