"""What a rollout hands back."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from wam_ros.contract.data import FloatArray
from wam_ros.execution import Mode


@dataclass(frozen=True)
class ChunkRecord:
    """One call of the policy; times in virtual seconds.

    ``t0`` is the stamp of the newest frame, ``called`` and ``delivered`` bound the inference,
    ``latency`` is their difference as charged, ``delay_rows`` counts rows that were past when the
    chunk arrived, ``refused`` says why the executor did not take it (empty: it did).
    """

    t0: float
    called: float
    delivered: float
    latency: float
    cadence: str
    rows: int
    frames: int
    delay_rows: float
    surprise: float
    instruction: str
    refused: str = ""


@dataclass
class Segment:
    """One instruction from when it was said to the next one, or the end.

    ``time_to_success`` is in seconds from ``start``, None when it was not reached; ``progress`` is
    the largest seen, ``final_progress`` and ``final_distance`` (m) are those at the end. ``error``
    says why the policy gave up, if it did.
    """

    instruction: str
    start: float
    end: float = 0.0
    success: bool = False
    time_to_success: float | None = None
    progress: float = 0.0
    final_progress: float = 0.0
    final_distance: float = float("nan")
    error: str = ""


@dataclass(frozen=True)
class Trace:
    """Time series of an episode, ``N`` samples.

    ``reference`` and ``measured`` are ``(N, D)`` over ``names`` in contract units, ``acceleration``
    ``(N, D)`` is the reference's; ``tips`` holds the tool centre of every arm group and ``objects``
    the centre of every object, ``(N, 3)`` in m in the root frame; ``mode`` is the executor's.
    """

    names: tuple[str, ...]
    t: FloatArray
    reference: FloatArray
    measured: FloatArray
    acceleration: FloatArray
    tips: dict[str, FloatArray]
    objects: dict[str, FloatArray]
    mode: FloatArray

    def path_length(self, group: str) -> float:
        """Metres travelled by the tool centre of ``group``."""
        return float(np.linalg.norm(np.diff(self.tips[group], axis=0), axis=1).sum())

    def rms_jerk(self, names: tuple[str, ...]) -> float:
        """Root mean square of the reference's jerk over time and the joints ``names``, rad/s^3.

        Jerk is the change of the reference's acceleration between two samples, so what happens
        within one (10 ms) is averaged.
        """
        columns = [self.names.index(n) for n in names]
        if len(self.t) < 2:
            return 0.0
        jerk = np.diff(self.acceleration[:, columns], axis=0) / np.diff(self.t)[:, None]
        return float(np.sqrt(np.mean(jerk**2)))

    def tracking(self) -> np.ndarray:
        """Whether the executor was following a chunk, ``(N,)``."""
        return np.asarray(self.mode == int(Mode.TRACKING))


@dataclass
class Episode:
    """Outcome of one run; the first segment's fields are repeated as properties."""

    robot: str
    seed: int
    cadence: str
    segments: list[Segment]
    trace: Trace
    chunks: list[ChunkRecord] = field(default_factory=list)
    holds: int = 0
    hold_seconds: float = 0.0
    wall_seconds: float = 0.0
    stopped: str = ""
    """Why the executor disarmed, if it did."""

    @property
    def instruction(self) -> str:
        """The first instruction."""
        return self.segments[0].instruction

    @property
    def success(self) -> bool:
        """Whether every instruction was carried out."""
        return all(s.success for s in self.segments)

    @property
    def time_to_success(self) -> float | None:
        """Seconds from the first instruction until the last one was carried out, or None."""
        last = self.segments[-1].time_to_success
        if not self.success or last is None:
            return None
        return self.segments[-1].start + last - self.segments[0].start

    @property
    def progress(self) -> float:
        """Largest progress of the last instruction, 0..1."""
        return self.segments[-1].progress

    @property
    def final_distance(self) -> float:
        """Distance (m) from the last instruction's goal at the end."""
        return self.segments[-1].final_distance

    @property
    def error(self) -> str:
        """First error of the policy, empty when there was none."""
        return next((s.error for s in self.segments if s.error), "")

    @property
    def simulated_seconds(self) -> float:
        """Virtual seconds from the first to the last sample."""
        return float(self.trace.t[-1] - self.trace.t[0])
