"""The teacher: inverse kinematics on the simulation's true object poses. It sees nothing.

A chunk is the motion that the field of `wam_ros.policy.guide` leads to from here, imagined row by
row. Nothing but the speed at which the last chunk was moving is carried from call to call.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from wam_ros.contract.data import ActionChunk, FloatArray
from wam_ros.contract.kinematics import Kinematics
from wam_ros.contract.model import Contract
from wam_ros.policy.base import PolicyError, Window
from wam_ros.policy.bowl import Bowl
from wam_ros.policy.errands import Errand, Stage, Touch
from wam_ros.policy.guide import ArmGuide
from wam_ros.policy.play import Play
from wam_ros.policy.reach import Reach, wanted_rotation
from wam_ros.resources import share
from wam_ros.sim.tasks import BowlTask, Task, TouchTask, arms, gripper_of, parse_instruction
from wam_ros.sim.urdf import expand

RAMP = 0.15
"""Time constant (s) with which an arm takes up or gives up speed."""
FOLLOWED = 0.15
"""Distance (rad) of the measured from the announced pose up to which the arm is on its way."""


class ScriptedPolicy:
    """Touches blocks, puts them into the bowl, plays.

    ``latency`` seconds pass in every call, as they would in a model, by ``clock`` and ``sleep``.
    ``play_seed`` fixes where its hands go when it is told to play; it may be changed between
    instructions.
    """

    name = "scripted"
    model = "teacher (true poses, no vision)"
    precision = ""
    needs_objects = True

    def __init__(
        self,
        latency: float = 0.1,
        play_seed: int = 0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if latency < 0:
            raise ValueError(f"latency {latency} s must not be negative")
        self._latency, self.play_seed = latency, play_seed
        self._clock, self._sleep = clock, sleep
        self._task: Task | None = None
        self._errand: Errand | None = None
        self._last: _Announced | None = None

    def configure(self, contract: Contract) -> None:
        """Build the kinematics from the contract's URDF."""
        path = Path(contract.urdf)
        self._contract = contract
        tree = Kinematics(expand(path if path.is_absolute() else share() / path))
        self._arms = {
            g.name: ArmGuide(Reach(contract, tree, g, wanted_rotation(contract.robot)))
            for g in contract.groups
            if g.role == "arm"
        }
        self._grippers = {a: gripper_of(contract, a) for a in arms(contract)}

    def warm_up(self) -> None:
        """Solve one throw-away problem."""
        arm = next(iter(self._arms.values()))
        arm.reach.goal(arm.reach.home_tip)

    def reset(self, instruction: str) -> None:
        """Understand the instruction; raises InstructionError (a ValueError) when it is not."""
        self._task = parse_instruction(instruction, self._contract)
        self._errand = self._make_errand(self._task)
        self._last = None

    def infer(self, window: Window) -> ActionChunk:
        """Imagine the next rows."""
        started = self._clock()
        if self._task is None or self._errand is None:
            raise PolicyError("no instruction was given; call reset first")
        wanted = getattr(self._task, "object", None)
        if wanted is not None and wanted not in window.objects:
            raise PolicyError(f"the simulation has not said where '{wanted}' is")
        newest = window.newest
        measured = dict(zip(self._contract.state_names, newest.state.tolist(), strict=True))
        first = self._last is None
        stage, speeds, hold = self._begin(measured, window, started)
        chunk = self._imagine(stage, speeds, hold, newest.t0, newest.state)
        if first and self._last is not None:
            # It is executed from its arrival, not from its stamp.
            self._last.delay(max(self._clock() - started, self._latency))
        self._sleep(max(0.0, self._latency - (self._clock() - started)))
        return chunk

    def close(self) -> None:
        """Nothing to free."""

    def _make_errand(self, task: Task) -> Errand:
        if isinstance(task, TouchTask):
            return Touch(task, self._arms)
        if isinstance(task, BowlTask):
            return Bowl(task, self._arms, self._width(task.group))
        return Play(self._contract.robot, self._arms, self.play_seed)

    def _gripper(self, arm: str) -> tuple[str, float, float]:
        """Joint of an arm's gripper, and where it is shut and open."""
        group = self._contract.group(self._grippers[arm] or "")
        return (
            group.joints[0].name,
            float(group.closed_value or 0.0),
            float(group.open_value or 0.0),
        )

    def _width(self, arm: str) -> float:
        """How far (m) the fingers of an arm are apart when open."""
        joint, shut, wide = self._gripper(arm)
        return abs(wide - shut) * sum(abs(s) for _, s, _ in self._contract.joints[joint].urdf)

    # ---- imagining -----------------------------------------------------------------------------

    def _begin(
        self, measured: dict[str, float], window: Window, started: float
    ) -> tuple[Stage, dict[str, float], float]:
        """Where the imagined motion starts: as last announced while the arms follow it."""
        assert self._errand is not None
        speeds = dict.fromkeys(self._arms, 0.0)
        values, hold = measured, 0.0
        t0 = window.newest.t0
        # In sync the arms stand still at every call and the rows' clock does not run meanwhile.
        if window.cadence != "sync":
            announced = self._last.at(t0) if self._last else None
            if self._last is not None and announced is not None:
                names = [n for a in self._arms.values() for n in a.reach.names]
                if max(abs(announced[n] - measured[n]) for n in names) < FOLLOWED:
                    values, speeds = {**measured, **announced}, self._last.speeds_at(t0)
            if values is measured and self._last is not None:
                # Rows that will be over before this chunk arrives hold still. Those of the first
                # chunk start on arrival.
                hold = self._clock() - started + self._latency
        opening = {}
        for arm in self._arms:
            if self._grippers[arm] is not None:
                joint, shut, wide = self._gripper(arm)
                opening[arm] = (measured[joint] - shut) / (wide - shut)
        q = {
            arm: np.array([measured[n] for n in guide.reach.names])
            for arm, guide in self._arms.items()
        }
        objects = {n: np.array(p, dtype=float) for n, p in window.objects.items()}
        stage = Stage(q, opening, objects)
        self._errand.begin(stage)
        for arm, guide in self._arms.items():  # what is carried comes along to where the arm leads
            ahead = np.array([values[n] for n in guide.reach.names])
            stage.move(arm, ahead - stage.q[arm], guide.reach)
        return stage, speeds, hold

    def _imagine(
        self,
        stage: Stage,
        speeds: dict[str, float],
        hold: float,
        t0: float,
        anchor: FloatArray,
    ) -> ActionChunk:
        assert self._errand is not None
        c = self._contract
        period = c.rates.step_period
        home = {n: j.home for n, j in c.joints.items()}
        rows = np.tile([home[n] for n in c.action_names], (c.rates.horizon, 1))
        columns = {
            a: [c.action_names.index(n) for n in g.reach.names] for a, g in self._arms.items()
        }
        history = []
        for i in range(c.rates.horizon):
            wish = self._errand.wish(stage)
            for arm in self._arms:
                rows[i, columns[arm]] = stage.q[arm]
                if self._grippers[arm] is not None and arm in wish.opening:
                    joint, shut, wide = self._gripper(arm)
                    value = shut + wish.opening[arm] * (wide - shut)
                    rows[i, c.action_names.index(joint)] = value
            history.append(dict(speeds))
            if i * period < hold:
                continue
            for arm, guide in self._arms.items():
                push = wish.arms[arm]
                speeds[arm] += (push.share - speeds[arm]) * min(1.0, period / RAMP)
                # Braking must not be late, or the arm runs past its goal.
                speeds[arm] = min(speeds[arm], push.share + 0.05)
                stage.move(arm, push.direction * guide.speed * speeds[arm] * period, guide.reach)
            stage.settle(wish, period)
        self._last = _Announced(t0, period, tuple(c.action_names), rows, history)
        return ActionChunk(
            t0=t0,
            step_period=period,
            actions=rows,
            names=c.action_names,
            kinds=c.action_kinds,
            anchor_state=anchor.copy(),
        )


class _Announced:
    """The last chunk: rows ``(H, D)`` and each arm's speed share at each row."""

    def __init__(
        self,
        t0: float,
        period: float,
        names: tuple[str, ...],
        rows: FloatArray,
        speeds: list[dict[str, float]],
    ) -> None:
        self._seen, self._t0, self._period, self._names = t0, t0, period, names
        self._rows, self._speeds = rows, speeds

    def delay(self, seconds: float) -> None:
        """Say that the rows start that much later; until then the first one counts."""
        self._t0 += seconds

    def at(self, t: float) -> dict[str, float] | None:
        """Announced positions at time ``t``; None where the chunk says nothing."""
        place = (t - self._t0) / self._period
        if t < self._seen or place > len(self._rows) - 1:
            return None
        place = max(place, 0.0)
        i = min(int(place), len(self._rows) - 2)
        row = self._rows[i] + (place - i) * (self._rows[i + 1] - self._rows[i])
        return dict(zip(self._names, row.tolist(), strict=True))

    def speeds_at(self, t: float) -> dict[str, float]:
        """Speed shares at time ``t``."""
        i = int(np.clip((t - self._t0) / self._period, 0, len(self._speeds) - 1))
        return dict(self._speeds[i])
