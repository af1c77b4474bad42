"""A driver that takes its commands late, in fits, and tells late where it is.

What it is sent may never go faster than the joints may, from before an e-stop to after arming again
included. No ROS: the core, the channel of the G1's arms, and a queue.
"""

from __future__ import annotations

from collections import deque

import numpy as np
import pytest
from execution_bench import DT, G1, HOME, LOWER, UPPER, N, armed, chunk, examples
from hypothesis import given
from hypothesis import strategies as st

from wam_ros.execution import Executor, Mode
from wam_ros.execution.outputs import Channel, channels

ARMS = [i for i, n in enumerate(G1.control_names) if G1.group_of(n).role == "arm"]
EVERY = 5  # control cycles between two messages to the arms


class Driver:
    """Works through one command a cycle, unless it stalls; is read at 50 Hz, unless it stalls."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._queue: deque[np.ndarray] = deque()
        self._stalled = self._read_at = 0.0
        self.position = HOME.copy()
        self.obstacle = np.full(N, np.inf)

    def hear(self, command: np.ndarray) -> None:
        self._queue.append(command)

    def step(self, now: float, core: Executor) -> bool:
        """False while it stalls."""
        if now < self._stalled:
            return False
        if self._rng.random() < 0.4 * DT:
            self._stalled = now + self._rng.uniform(0.05, 0.6)
        if self._queue:
            self.position[ARMS] = np.minimum(self._queue.popleft(), self.obstacle[ARMS])
        if now >= self._read_at:
            self._read_at = now + 0.02
            core.set_measured(dict(zip(core.names, map(float, self.position), strict=True)), now)
        return True


def arms_of(core: Executor) -> Channel:
    return next(c for c in channels(G1, core, sim=True) if c.output.name == "arms")


@given(seed=st.integers(0, 2**32 - 1))
@examples(6)
def test_it_is_never_sent_a_jump_also_where_it_is_armed_again_at_once(seed: int) -> None:
    rng = np.random.default_rng(seed)
    core, driver = armed(), Driver(rng)
    arms, size = arms_of(core), 0.4
    last, then, armings = (0, driver.position[ARMS]), 0.5, 0
    most = DT * np.array([G1.joints[core.names[i]].limits.velocity for i in arms.columns])
    for tick in range(1, 5000):
        now = tick * DT
        if driver.step(now, core):
            if tick % 75 == 0:
                rows = np.tile(HOME, (24, 1))
                rows[:, ARMS] += size * np.sin(1.5 * (now + np.arange(24) / 30))[:, None]
                core.submit(chunk(now, np.clip(rows, LOWER, UPPER), tick), now)
            # A stop that is over at once is the hardest: the driver is still on its way.
            if core.mode is Mode.TRACKING and now > then and np.abs(core.state[1]).max() < 0.2:
                then = now + 2.0
                if rng.random() < 0.7:
                    core.estop("pressed")
                else:
                    driver.obstacle[ARMS[:3]], size = driver.position[ARMS[:3]], 0.6
            if core.mode in (Mode.ESTOPPED, Mode.DISARMED) and tick % EVERY == 0:
                driver.obstacle[:], size = np.inf, 0.4
                if core.reset() == "" and core.arm(now) == "":
                    armings, then = armings + 1, now + rng.uniform(0.1, 1.0)
        command = core.tick(now)
        if command is None:
            arms.forget()
        elif arms.due(tick):
            value = arms.raw(command, core.measured)
            if value is None:
                continue
            assert np.abs(value - core.measured[arms.columns]).max() <= 0.2618
            step = np.abs(value - last[1]) / most
            # Armed anew it may be sent at any cycle, in step with the cycles' number.
            assert step.max() <= max(tick - last[0], EVERY) + 0.05, f"at {now}: {core.reason}"
            last = (tick, value)
            driver.hear(value)
    assert armings > 0, core.reason


def test_readings_that_run_away_do_not_pull_the_value_along() -> None:
    core = armed()
    arms = arms_of(core)
    arms.raw(core.reference, core.measured)
    away = np.clip(core.measured - 0.6, LOWER, UPPER)
    last, at = HOME[arms.columns], 0
    speed = np.array([G1.joints[core.names[i]].limits.velocity for i in arms.columns])
    for number in range(1, 60):
        value = arms.raw(core.reference, away)
        if value is not None:
            assert np.abs(value - away[arms.columns]).max() <= 0.2618
            steps = np.abs(value - last)
            assert np.all(steps <= (number - at) * EVERY * DT * speed + 1e-12)
            last, at = value, number
    assert at == 59
    near = np.minimum(away + 0.95 * 0.2618, core.reference)
    np.testing.assert_allclose(last, near[arms.columns])


def test_an_arm_that_reads_outside_its_range_does_not_draw_the_value_out() -> None:
    core = armed()
    arms = arms_of(core)
    outside = core.measured.copy()
    outside[0] = UPPER[0] + 1.0
    for _ in range(300):
        value = arms.raw(core.reference, outside)
        assert value is None or value[0] <= UPPER[0]
    assert value is None


@pytest.mark.parametrize("off, gives_way", [(0.45, True), (0.55, False)])
def test_a_pose_that_no_silence_explains_is_not_gone_to(off: float, gives_way: bool) -> None:
    """Readings come back after a second: how far the arm is now, nobody has seen happen."""
    core = armed()
    core.submit(chunk(0.0, np.tile(HOME, (24, 1))), 0.0)
    for tick in range(500):
        core.tick(tick * DT)
    core.set_measured(dict(zip(core.names, map(float, HOME + off * np.eye(N)[0]))), 1.0)
    sent = [core.tick(1.0 + k * DT) for k in range(2000)]
    assert core.mode is Mode.DISARMED
    told = [command for command in sent if command is not None]
    if gives_way:
        assert told[-1][0] == pytest.approx(HOME[0] + off, abs=1e-3)
        assert "following error" in core.reason
    else:
        assert not told and "was it moved" in core.reason
