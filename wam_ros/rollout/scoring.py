"""Scores the instructions of an episode as they follow one another."""

from __future__ import annotations

import numpy as np

from wam_ros.contract.model import Contract
from wam_ros.rollout.episode import Segment
from wam_ros.sim.judge import TaskJudge, judge_for
from wam_ros.sim.plant import Plant
from wam_ros.sim.tasks import parse_instruction


class Score:
    """Keeps a judge for the instruction in force and closes its segment when the next one comes."""

    def __init__(self, contract: Contract, plant: Plant) -> None:
        self._contract, self._plant = contract, plant
        self._judge: TaskJudge | None = None
        self.segments: list[Segment] = []
        self.since = 0.0
        self.gave_up = False

    @property
    def success(self) -> bool:
        """Whether the instruction in force has been carried out."""
        return bool(self.segments) and self.segments[-1].success

    def say(self, instruction: str, now: float) -> None:
        """The next instruction; one that the simulation cannot judge never succeeds."""
        self.finish(now)
        self.gave_up = False
        self.segments.append(Segment(instruction, now))
        self._judge = None
        if instruction:
            try:
                self._judge = judge_for(parse_instruction(instruction, self._contract), self._plant)
            except ValueError as err:
                self.segments[-1].error = str(err)

    def update(self, now: float) -> None:
        """Look at the scene."""
        judge = self._judge
        if judge is None:
            return
        segment = self.segments[-1]
        judge.watch(self._plant)
        segment.progress = max(segment.progress, judge.progress)
        segment.final_progress, segment.final_distance = judge.progress, judge.distance
        if judge.success and not segment.success:
            segment.success, self.since = True, now
            segment.time_to_success = now - segment.start

    def give_up(self, error: str) -> None:
        """The policy will not go on with this instruction."""
        if self.segments and not self.gave_up:
            self.segments[-1].error, self.gave_up = error, True

    def finish(self, now: float) -> None:
        """Close the segment in force."""
        if self.segments:
            self.segments[-1].end = now
            if not np.isfinite(self.segments[-1].final_distance):
                self.segments[-1].final_progress = 0.0
