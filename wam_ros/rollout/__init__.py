"""The cores in lockstep on a virtual clock, in one process and without middleware."""

from wam_ros.rollout.episode import ChunkRecord, Episode, Segment, Trace
from wam_ros.rollout.loop import Rollout
from wam_ros.rollout.observer import Observer
from wam_ros.rollout.settings import Settings

__all__ = ["ChunkRecord", "Episode", "Observer", "Rollout", "Segment", "Settings", "Trace"]
