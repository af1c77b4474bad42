"""From an episode to the record that evaluation keeps of it."""

from __future__ import annotations

from wam_ros.contract.model import Contract
from wam_ros.evaluation.record import EpisodeRecord
from wam_ros.rollout.episode import Episode
from wam_ros.sim.tasks import arms


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
