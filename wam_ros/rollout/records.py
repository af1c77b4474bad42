"""One line per evaluated episode: what statistics are made of."""

from __future__ import annotations

from dataclasses import dataclass

from wam_ros.contract.model import Contract
from wam_ros.rollout.episode import Episode
from wam_ros.sim.tasks import arms


@dataclass(frozen=True)
class EpisodeRecord:
    """Outcome of one episode.

    ``progress`` is 0..1 (for a chain, the share of instructions done), ``time_to_success`` in s
    from the instruction or None, ``path_length`` in m of the acting tool centres, ``rms_jerk`` in
    rad/s^3 of the acting arms' reference, ``chunk_latencies`` in s, ``holds`` counts the times the
    executor stopped for want of a chunk and ``hold_seconds`` how long it did.
    """

    policy: str
    cadence: str
    task: str
    split: str
    seed: int
    instruction: str
    success: bool
    progress: float
    time_to_success: float | None
    path_length: float
    rms_jerk: float
    chunk_latencies: tuple[float, ...]
    holds: int
    hold_seconds: float
    final_distance: float = float("nan")
    error: str = ""
    done: int = 0
    """Instructions carried out before the first that was not."""


def record_of(
    episode: Episode,
    contract: Contract,
    policy: str,
    task: str,
    split: str,
    groups: tuple[str, ...] = (),
) -> EpisodeRecord:
    """Condense an episode; ``groups`` are the acting arms, all when empty."""
    acting = groups or arms(contract)
    joints = tuple(j.name for g in acting for j in contract.group(g).joints)
    done = next((i for i, s in enumerate(episode.segments) if not s.success), len(episode.segments))
    return EpisodeRecord(
        policy=policy,
        cadence=episode.cadence,
        task=task,
        split=split,
        seed=episode.seed,
        instruction=episode.instruction,
        success=episode.success,
        progress=episode.progress,
        time_to_success=episode.time_to_success,
        path_length=sum(episode.trace.path_length(g) for g in acting),
        rms_jerk=episode.trace.rms_jerk(joints),
        chunk_latencies=tuple(c.latency for c in episode.chunks),
        holds=episode.holds,
        hold_seconds=episode.hold_seconds,
        final_distance=episode.final_distance,
        error=episode.error or episode.stopped,
        done=done,
    )
