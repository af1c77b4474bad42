"""The teacher: inverse kinematics on the simulation's true object poses. It sees nothing.

It plans a minimum-jerk joint path from the observed state over a point above the block down onto
it, and hands out chunks cut from that plan, so that replanning does not change the motion.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wam_ros.contract.data import ActionChunk, FloatArray
from wam_ros.contract.ik import IkResult
from wam_ros.contract.kinematics import Kinematics
from wam_ros.contract.model import Contract, JointGroup
from wam_ros.policy.base import PolicyError, Window
from wam_ros.resources import share
from wam_ros.sim.tasks import TouchTask, parse_instruction
from wam_ros.sim.urdf import expand

HOVER = 0.10
"""Height above the block (m) from which it is approached."""
TOUCH = 0.012
"""Height of the tool centre above the block's centre (m) at the end: inside its upper half."""
REACHED = 0.005
"""Position error (m) below which an inverse kinematics solution counts."""
SHORT = 1.0
"""Largest joint travel (rad) at which the first solution is taken without looking for others."""
SPEED_SHARE = 0.4
"""Share of each joint's speed limit that the plan may use."""
ROOM = 0.34
"""Horizontal distance (m) from the block that the other hand keeps, or retreats to."""


def minimum_jerk(s: FloatArray | float) -> FloatArray:
    """Position share 0..1 at time share ``s``: 10 s^3 - 15 s^4 + 6 s^5 (Flash and Hogan 1985)."""
    s = np.clip(np.asarray(s, dtype=np.float64), 0.0, 1.0)
    return np.asarray(s**3 * (10.0 - 15.0 * s + 6.0 * s**2))


@dataclass(frozen=True)
class Plan:
    """Joint waypoints ``(K, D)`` of one arm and the time each is reached."""

    joints: tuple[str, ...]
    times: FloatArray
    points: FloatArray
    target: FloatArray

    def at(self, t: float) -> FloatArray:
        """Joint positions ``(D,)`` at time ``t``; each leg is minimum-jerk."""
        i = int(np.clip(np.searchsorted(self.times, t, side="right") - 1, 0, len(self.times) - 2))
        span = self.times[i + 1] - self.times[i]
        s = minimum_jerk((t - self.times[i]) / span)
        return np.asarray(self.points[i] + s * (self.points[i + 1] - self.points[i]))


def _turns(rotation: FloatArray) -> list[FloatArray | None]:
    """The hand's rotation ``(3, 3)`` as it is, swung about the vertical, and left free."""
    turned: list[FloatArray | None] = []
    for angle in np.radians([0.0, 20.0, -20.0, 40.0, -40.0]):
        c, s = np.cos(angle), np.sin(angle)
        turned.append(np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]]) @ rotation)
    return [*turned, None]


class ScriptedPolicy:
    """Touch tasks by inverse kinematics.

    ``latency`` seconds pass in every call, as they would in a model, by ``clock`` and ``sleep``.
    """

    name = "scripted"
    model = "touch teacher (true poses, no vision)"
    precision = ""
    needs_objects = True

    def __init__(
        self,
        latency: float = 0.1,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if latency < 0:
            raise ValueError(f"latency {latency} s must not be negative")
        self._latency, self._clock, self._sleep = latency, clock, sleep
        self._plan: Plan | None = None
        self._task: TouchTask | None = None

    def configure(self, contract: Contract) -> None:
        """Build the kinematics from the contract's URDF."""
        path = Path(contract.urdf)
        self._contract = contract
        self._kinematics = Kinematics(expand(path if path.is_absolute() else share() / path))

    def warm_up(self) -> None:
        """Solve one throw-away problem."""
        home = {n: j.home for n, j in self._contract.joints.items()}
        arm = next(g for g in self._contract.groups if g.role == "arm")
        self._tip(home, arm.tip_link or "")

    def reset(self, instruction: str) -> None:
        """Understand the instruction; raises InstructionError (a ValueError) when it is not."""
        task = parse_instruction(instruction, self._contract)
        if not isinstance(task, TouchTask):
            raise ValueError(f"the teacher cannot do '{instruction}' yet; it touches blocks")
        self._task = task
        self._plan = None

    def infer(self, window: Window) -> ActionChunk:
        """Cut the next chunk out of the plan, planning first when there is none."""
        started = self._clock()
        task = self._task
        if task is None:
            raise PolicyError("no instruction was given; call reset first")
        if task.object not in window.objects:
            raise PolicyError(f"the simulation has not said where '{task.object}' is")
        newest = window.newest
        state = dict(zip(self._contract.state_names, newest.state, strict=True))
        target = window.objects[task.object]
        moved = self._plan is not None and np.linalg.norm(self._plan.target - target) > 0.01
        if self._plan is None or moved:
            plan = self._make_plan(task, state, target, newest.t0)
            # Rows that will be over before this chunk arrives hold still.
            lost = 0.0 if window.cadence == "sync" else self._clock() - started + self._latency
            self._plan = Plan(plan.joints, plan.times + lost, plan.points, plan.target)
        elif window.cadence == "sync":
            # In sync the model's clock is the executed row: time spent holding does not count.
            self._plan = self._rejoin(self._plan, state, newest.t0)
        chunk = self._cut(self._plan, state, newest.t0, newest.state)
        self._sleep(max(0.0, self._latency - (self._clock() - started)))
        return chunk

    def close(self) -> None:
        """Nothing to free."""

    # ---- planning ------------------------------------------------------------------------------

    def _urdf(self, state: dict[str, float]) -> dict[str, float]:
        joints = self._contract.joints
        return {u: s * v + o for n, v in state.items() for u, s, o in joints[n].urdf}

    def _tip(self, state: dict[str, float], link: str) -> FloatArray:
        return np.asarray(self._kinematics.fk(self._urdf(state), link)[:3, 3])

    def _make_plan(
        self, task: TouchTask, state: dict[str, float], target: FloatArray, t0: float
    ) -> Plan:
        group = self._contract.group(task.group)
        link = group.tip_link or ""
        q = self._urdf(state)
        here = self._kinematics.fk(q, link)
        hover = target + np.array([0.0, 0.0, HOVER])
        touch = target + np.array([0.0, 0.0, TOUCH])
        above = self._solve(group, task.object, q, hover, here[:3, :3])
        below = self._solve(group, task.object, {**q, **above}, touch, here[:3, :3])
        legs = [
            [state[j.name] for j in group.joints],
            [above[j.urdf[0][0]] for j in group.joints],
            [below[j.urdf[0][0]] for j in group.joints],
        ]
        joints = list(group.joints)
        for other, aside in self._make_room(group, q, target):
            joints += other.joints
            legs[0] += [state[j.name] for j in other.joints]
            for leg in legs[1:]:
                leg += [aside[j.urdf[0][0]] for j in other.joints]
        points = np.array(legs)
        speed = SPEED_SHARE * np.array([j.limits.velocity for j in joints])
        # A minimum-jerk leg peaks at 15/8 of its mean speed.
        spans = np.max(np.abs(np.diff(points, axis=0)) / speed, axis=1) * 15.0 / 8.0
        times = t0 + np.concatenate([[0.0], np.cumsum(np.maximum(spans, 0.8))])
        return Plan(tuple(j.name for j in joints), times, points, target)

    def _make_room(
        self, moving: JointGroup, q: dict[str, float], target: FloatArray
    ) -> Iterator[tuple[JointGroup, dict[str, float]]]:
        """Where other arms go whose hand would be in the way, by URDF joint name."""
        for group in self._contract.groups:
            if group.role != "arm" or group.name == moving.name or group.tip_link is None:
                continue
            pose = self._kinematics.fk(q, group.tip_link)
            away = pose[:2, 3] - target[:2]
            distance = float(np.linalg.norm(away))
            if distance >= ROOM:
                continue
            # Out to the hand's own side, which is where it came from, and up.
            side = np.sign(pose[1, 3] - self._kinematics.fk(q, moving.tip_link or "")[1, 3])
            outward = np.array([-0.3, side])
            reach = ROOM - side * away[1]
            position = pose[:3, 3] + np.array([*(outward * max(reach, 0.0)), 0.08])
            with contextlib.suppress(PolicyError):  # then it stays; the executor's gate watches
                yield group, self._solve(group, "its place aside", q, position, pose[:3, :3])

    def _solve(
        self,
        group: JointGroup,
        goal: str,
        q: dict[str, float],
        position: FloatArray,
        rotation: FloatArray,
    ) -> dict[str, float]:
        link = group.tip_link or ""
        names = [j.urdf[0][0] for j in group.joints]
        limits = {
            j.urdf[0][0]: (j.limits.lower + 0.02, j.limits.upper - 0.02) for j in group.joints
        }

        def travel(result: IkResult) -> float:
            return max(abs(result.q[n] - q[n]) for n in names)

        # Descents from where the arm is stay in its branch of solutions; random restarts may end in
        # another one, and the joint path there sweeps through the table. They are the last resort.
        found: list[IkResult] = []
        for turns, restarts in ((_turns(rotation), 0), ([rotation, None], 3)):
            for turn in turns:
                result = self._kinematics.ik(
                    link, position, q, names, limits, rotation=turn, restarts=restarts
                )
                found.append(result)
                if result.position_error < REACHED and travel(result) < SHORT:
                    break
            reached = [r for r in found if r.position_error < REACHED]
            if reached:
                best = min(reached, key=travel)
                return {n: float(best.q[n]) for n in names}
        result = min(found, key=lambda r: r.position_error)
        raise PolicyError(
            f"{group.name} cannot reach {goal} at {np.round(position, 3).tolist()}: "
            f"{result.position_error:.3f} m short"
        )

    def _rejoin(self, plan: Plan, state: dict[str, float], t0: float) -> Plan:
        """Shift the plan in time so that it continues from where the arm is."""
        here = np.array([state[n] for n in plan.joints])
        grid = np.linspace(plan.times[0], plan.times[-1], 400)
        gaps = [float(np.max(np.abs(plan.at(t) - here))) for t in grid]
        shift = t0 - float(grid[int(np.argmin(gaps))])
        return Plan(plan.joints, plan.times + shift, plan.points, plan.target)

    def _cut(
        self, plan: Plan, state: dict[str, float], t0: float, anchor: FloatArray
    ) -> ActionChunk:
        c = self._contract
        home = {n: j.home for n, j in c.joints.items()}
        period = c.rates.step_period
        rows = np.tile([home[n] for n in c.action_names], (c.rates.horizon, 1))
        columns = [c.action_names.index(n) for n in plan.joints]
        for i in range(c.rates.horizon):
            rows[i, columns] = plan.at(t0 + i * period)
        for name in c.action_names:  # an arm that has no part in the plan stays where it is
            if c.group_of(name).role == "arm" and name not in plan.joints:
                rows[:, c.action_names.index(name)] = state[name]
        return ActionChunk(
            t0=t0,
            step_period=period,
            actions=rows,
            names=c.action_names,
            kinds=c.action_kinds,
            anchor_state=anchor.copy(),
        )
