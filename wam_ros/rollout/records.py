"""From an episode to the line that an evaluation keeps of it."""

from __future__ import annotations

from wam_ros.contract.model import Contract
from wam_ros.evaluation import EpisodeRecord
from wam_ros.rollout.episode import Episode
from wam_ros.sim.tasks import arms


def record_of(
    episode: Episode,
    contract: Contract,
    policy: str,
    task: str,
    split: str,
    groups: tuple[str, ...] = (),
    chain: int = 1,
) -> EpisodeRecord:
    """Condense an episode.

    ``groups`` are the acting arms, all when empty: path lengths are added, jerk is over their
    joints. Of a ``chain`` of more than one instruction, progress is the share that was done before
    the first that was not.
    """
    acting = groups or arms(contract)
    joints = tuple(j.name for g in acting for j in contract.group(g).joints)
    count = max(chain, len(episode.segments))
    done = next((i for i, s in enumerate(episode.segments) if not s.success), len(episode.segments))
    success = done == count
    return EpisodeRecord(
        policy=policy,
        cadence=episode.cadence,
        task=task,
        split=split,
        seed=episode.seed,
        instruction=episode.instruction,
        success=success,
        progress=done / count if count > 1 else episode.progress,
        time_to_success=episode.time_to_success if success else None,
        path_length=sum(episode.trace.path_length(g) for g in acting),
        rms_jerk=episode.trace.rms_jerk(joints),
        chunk_latencies=tuple(c.latency for c in episode.chunks),
        holds=episode.holds,
        hold_seconds=episode.hold_seconds,
        final_distance=episode.final_distance,
        error=episode.error or episode.stopped,
        done=done,
    )
