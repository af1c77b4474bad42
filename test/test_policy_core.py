"""Frame buffer, cadence, teacher and replay without middleware."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wam_ros.contract import load_contract
from wam_ros.contract.data import Observation
from wam_ros.policy.base import PolicyError, Window
from wam_ros.policy.cadence import Latency, Scheduler
from wam_ros.policy.frames import FrameBuffer
from wam_ros.policy.registry import make
from wam_ros.policy.replay import ReplayPolicy
from wam_ros.policy.scripted import ScriptedPolicy
from wam_ros.sim.scene import place_blocks, scene_for
from wam_ros.sim.tasks import InstructionError, Judge, TouchTask, parse_instruction

G1 = load_contract("agibot_g1")


def seen(t0: float, contract=G1) -> Observation:
    state = np.array([contract.joints[n].home for n in contract.state_names])
    return Observation(t0, {}, state)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 10), min_size=1, max_size=60), st.integers(1, 6))
def test_frames_are_one_stride_apart_and_end_at_the_newest(times, count) -> None:
    buffer = FrameBuffer(stride=0.1)
    for t in times:
        buffer.push(seen(t))
    picked = [o.t0 for o in buffer.pick(count)]
    assert 1 <= len(picked) <= count
    assert buffer.newest is not None and picked[-1] == buffer.newest.t0
    for i, t in enumerate(reversed(picked)):
        assert abs(t - (picked[-1] - 0.1 * i)) <= 0.05 + 1e-9


def test_frames_already_fed_are_left_out() -> None:
    buffer = FrameBuffer(stride=0.1)
    for k in range(10):
        buffer.push(seen(0.1 * k))
    assert [round(o.t0, 1) for o in buffer.pick(8, since=0.55)] == [0.6, 0.7, 0.8, 0.9]


def test_sync_waits_for_the_rows_and_for_rest() -> None:
    s = Scheduler("sync", horizon=0.8)
    assert s.decide(0.0, 0.0, resting=True).call
    s.delivered(1.0)
    assert not s.decide(0.9, 0.1, resting=True).call
    assert not s.decide(1.1, 0.1, resting=False).call
    assert s.decide(1.1, 0.1, resting=True).call


def test_async_calls_one_latency_and_a_margin_before_the_end() -> None:
    s = Scheduler("async", horizon=0.8, margin=0.05)
    s.delivered(1.0)
    assert not s.decide(0.64, 0.3, resting=False).call
    assert s.decide(0.66, 0.3, resting=False).call


def test_async_falls_back_to_sync_and_says_why() -> None:
    decision = Scheduler("async", horizon=0.8).decide(0.0, 0.5, resting=True)
    assert decision.cadence == "sync"
    assert "half the horizon" in decision.reason


def test_sliding_runs_at_its_period_and_falls_back() -> None:
    s = Scheduler("sliding", horizon=0.8, period=0.2)
    s.called(0.0)
    s.delivered(0.8)
    assert not s.decide(0.1, 0.1, resting=False).call
    assert s.decide(0.2, 0.1, resting=False).call
    assert s.in_force(0.65)[0] == "sync"
    wide = Scheduler("sliding", horizon=0.8, period=0.6)
    assert wide.in_force(0.3)[0] == "async"


def test_unknown_cadence_is_named() -> None:
    with pytest.raises(ValueError, match="'fast' is not one of sync"):
        Scheduler("fast", horizon=0.8)


def test_latency_leaves_the_warm_up_out() -> None:
    latency = Latency()
    latency.add(9.0, warm_up=True)
    assert latency.expected(0.4) == 0.4  # better than nothing, but no reason to leave a cadence
    for value in (0.1, 0.2):
        latency.add(value)
    latency.add(9.0, warm_up=True)
    assert latency.percentile(100) == latency.expected(0.4) + 0.005 == pytest.approx(0.2)


@pytest.mark.parametrize("robot", ["agibot_g1", "franka_droid", "yam"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_teacher_ends_on_the_block_within_limits(robot: str, seed: int) -> None:
    contract = load_contract(robot)
    blocks = place_blocks(scene_for(robot), seed)
    teacher = ScriptedPolicy(latency=0.0)
    teacher.configure(contract)
    side = "" if robot == "franka_droid" else " with the right hand"
    teacher.reset(f"touch the blue block{side}")
    objects = dict(blocks)
    state, t = seen(0.0, contract).state.copy(), 100.0
    columns = [contract.action_names.index(n) for n in contract.state_names]
    speed = np.array([contract.joints[n].limits.velocity for n in contract.state_names])
    for _ in range(30):
        chunk = teacher.infer(Window((Observation(t, {}, state),), objects, cadence="async"))
        rows = chunk.actions[:, columns]
        assert np.all(np.abs(np.diff(rows, axis=0)) <= speed * chunk.step_period + 1e-9)
        state, t = rows[6].copy(), t + 6 * chunk.step_period
    arm = next(g for g in contract.groups if g.role == "arm" and (not side or "right" in g.name))
    reach = teacher._arms[arm.name].reach
    pose = dict(zip(contract.state_names, state))
    tip = reach.pose(np.array([pose[n] for n in reach.names]))[:3, 3]
    assert np.linalg.norm(tip - blocks["blue_block"]) < 0.02


def test_the_teachers_first_chunk_starts_moving_at_once_and_the_next_goes_on_from_it() -> None:
    """It is executed from its arrival, a planning time after the observation."""
    teacher = ScriptedPolicy(latency=0.3)
    teacher.configure(G1)
    teacher.reset("touch the red block with the left hand")
    objects = dict(place_blocks(scene_for("agibot_g1"), 0))
    began = time.monotonic()
    first = teacher.infer(Window((seen(100.0),), objects, cadence="async"))
    took = time.monotonic() - began
    moving = np.abs(first.actions - first.actions[0]).max(axis=1)
    assert np.all(np.diff(moving[1:]) > 0.0)
    second = teacher.infer(Window((seen(100.0 + took + 0.2),), objects, cadence="async"))
    # Row 6 of the first is due 0.2 s after it arrived.
    np.testing.assert_allclose(second.actions[0], first.actions[6], atol=0.02)


def test_teacher_says_what_it_misses() -> None:
    teacher = ScriptedPolicy()
    teacher.configure(G1)
    with pytest.raises(InstructionError, match="in simulation try"):
        teacher.reset("make me a sandwich")
    teacher.reset("touch the red block")
    with pytest.raises(PolicyError, match="has not said where 'red_block' is"):
        teacher.infer(Window((seen(0.0),)))
    far = {"red_block": np.array([5.0, 0.0, 0.0])}
    with pytest.raises(PolicyError, match="cannot reach red_block"):
        teacher.infer(Window((seen(0.0),), far))


@pytest.mark.parametrize(
    ("text", "task"),
    [
        ("touch the red block with the left hand", TouchTask("red_block", "left_arm")),
        (
            "Reach the GREEN cube with your right gripper",
            TouchTask("green_block", "right_arm"),
        ),
        ("tap the blue block", TouchTask("blue_block", "left_arm")),
    ],
)
def test_paraphrases(text: str, task: TouchTask) -> None:
    assert parse_instruction(text, G1) == task


@pytest.mark.parametrize(
    "text",
    ["", "sing", "touch the yellow block", "don't touch the red block", "put the red block away",
     "touch the red and the blue block", "touch the red block with left and right"],
)  # fmt: skip
def test_what_is_not_understood_is_refused(text: str) -> None:
    with pytest.raises(InstructionError):
        parse_instruction(text, G1)


def test_judge_needs_half_a_second_within_three_centimetres() -> None:
    judge = Judge(TouchTask("red_block", "left_arm"))
    goal = np.zeros(3)
    judge.update(0.0, np.array([0.3, 0, 0]), goal)
    judge.update(1.0, np.array([0.02, 0, 0]), goal)
    assert not judge.success
    judge.update(1.3, np.array([0.05, 0, 0]), goal)
    judge.update(1.4, np.array([0.02, 0, 0]), goal)
    judge.update(1.7, np.array([0.02, 0, 0]), goal)
    assert not judge.success
    judge.update(1.95, np.array([0.02, 0, 0]), goal)
    assert judge.success and judge.progress == 1.0


def recording(path, names=G1.control_names, period=1 / 30, spoil=False):
    actions = np.tile(np.arange(40.0)[:, None] * 0.001, (1, len(names)))
    if spoil:
        actions[3, 1] = np.nan
    np.savez(path, actions=actions, names=np.array(names), step_period=period)
    return str(path)


def test_replay_gives_the_rows_that_are_due(tmp_path) -> None:
    policy = ReplayPolicy(recording(tmp_path / "r.npz"))
    policy.configure(G1)
    policy.reset("anything")
    first = policy.infer(Window((seen(5.0),)))
    later = policy.infer(Window((seen(5.0 + 10 / 30),)))
    assert first.actions[0, 0] == 0.0
    assert later.actions[0, 0] == pytest.approx(0.010)
    assert later.actions[-1, 0] == pytest.approx(0.033)


@pytest.mark.parametrize(
    ("make_file", "text"),
    [
        (lambda p: str(p / "none.npz"), "cannot be replayed"),
        (lambda p: recording(p / "r.npz", names=G1.control_names[1:]), "no column for left_arm"),
        (lambda p: recording(p / "r.npz", period=0.1), "step period 0.1000"),
        (lambda p: recording(p / "r.npz", spoil=True), "not numbers"),
    ],
)
def test_bad_recordings_are_named(tmp_path, make_file, text: str) -> None:
    with pytest.raises(PolicyError, match=text):
        ReplayPolicy(make_file(tmp_path)).configure(G1)


def test_unknown_backend_names_the_known_ones() -> None:
    with pytest.raises(PolicyError, match="there are scripted, replay"):
        make("magic", {})
