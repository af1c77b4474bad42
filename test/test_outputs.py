"""What each driver gets: unit, direction, rate, bound, window, speeds, gripper goals."""

from __future__ import annotations

import sys
import types
from dataclasses import replace

import numpy as np
import pytest

from wam_ros.contract import load_contract
from wam_ros.contract.data import ActionChunk
from wam_ros.contract.model import Contract, Output
from wam_ros.execution import Executor, execute
from wam_ros.execution.outputs import channels

G1 = load_contract("agibot_g1")
DT = 0.002


def moving(contract: Contract, until: float = 0.3, size: float = 0.2) -> Executor:
    """An executor in the middle of a motion of its first joint."""
    core = Executor(contract)
    home = {n: contract.joints[n].home for n in core.names}
    core.set_measured(home, 0.0, resting=True)
    assert core.arm(0.0) == ""
    rows = np.array([contract.joints[n].home for n in contract.action_names])[None].repeat(48, 0)
    wave = 1 - np.cos(3 * np.arange(48) / 30)
    rows[:, 0] += size * wave
    speeds = [i for i, k in enumerate(contract.action_kinds) if k == "velocity"]
    rows[:, speeds] = 0.3
    sent = ActionChunk(
        0.0, 1 / 30, rows, contract.action_names, contract.action_kinds, 1, cadence="async"
    )
    execute(core, [(0.0, sent)], DT * np.arange(round(until / DT)))
    return core


def with_outputs(contract: Contract, *outputs: Output) -> Contract:
    return replace(contract, outputs=outputs)


def test_unit_and_direction_of_a_gripper() -> None:
    turned = Output("g", "/g", "x/msg/X", ("left_gripper",), 30, scale=-85.0, offset=120.0)
    core = moving(G1)
    channel = channels(with_outputs(G1, turned), core, sim=True)[0]
    command = np.zeros(len(core.names))
    for value, raw in ((0.0, 120.0), (1.0, 35.0), (0.5, 77.5)):
        command[channel.columns] = value
        assert channel.raw(command, core.measured) == pytest.approx(raw)


def test_each_output_has_its_own_rate() -> None:
    core = moving(G1)
    for channel in channels(G1, core, sim=True):
        sent = sum(channel.due(tick) for tick in range(500))
        assert sent == pytest.approx(channel.output.rate, rel=0.07)


def test_a_message_whose_cycle_was_lost_is_sent_in_the_next() -> None:
    core = moving(G1)
    slow = next(c for c in channels(G1, core, sim=True) if c.every > 5)
    sent = [t for t in range(1000) if t % slow.every and slow.due(t)]
    assert len(sent) == len(range(0, 1000, slow.every))
    assert np.diff(sent).max() <= slow.every + 1


def test_a_window_that_is_held_back_stands_still() -> None:
    name = G1.control_names[4]
    output = Output(
        "arm", "/arm", "trajectory_msgs/msg/JointTrajectory", (name,), 100, max_step=0.02
    )
    core = moving(G1, size=0.0)
    core.set_measured({n: G1.joints[n].home - 0.1 for n in core.names}, 0.3)
    window = channels(with_outputs(G1, output), core, sim=True)[0].window(core)
    assert len(window) == 8
    for point in window:
        assert point.positions[0] == pytest.approx(G1.joints[name].home - 0.1 + 0.95 * 0.02)
        assert point.velocities[0] == point.accelerations[0] == 0.0


def test_g1_is_never_told_more_than_its_bound_from_the_measured_position() -> None:
    core = moving(G1)
    arms = next(c for c in channels(G1, core, sim=True) if c.output.name == "arms")
    measured = core.measured.copy()
    measured[0] -= 1.0
    sent = arms.raw(core.reference, measured)
    assert sent[0] - measured[0] == pytest.approx(0.95 * 0.2618)
    np.testing.assert_array_equal(sent[1:], core.reference[arms.columns][1:])


def test_a_value_held_back_catches_up_at_joint_speed_and_never_after_silence() -> None:
    core = moving(G1)
    arms = next(c for c in channels(G1, core, sim=True) if c.output.name == "arms")
    away = core.measured.copy()
    away[arms.columns] -= 0.5
    away = np.maximum(away, [G1.joints[n].limits.lower for n in core.names])
    sent = [arms.raw(core.reference, away)]
    while np.abs(sent[-1] - core.reference[arms.columns]).max() > 1e-9:  # the arm is back at once
        sent.append(arms.raw(core.reference, core.measured))
        assert len(sent) < 200
    speed = np.array([G1.joints[core.names[i]].limits.velocity for i in arms.columns])
    assert len(sent) > 3
    assert np.all(np.abs(np.diff(sent, axis=0)) <= speed / arms.output.rate + 1e-9)

    arms.raw(core.reference, away)
    arms.forget()
    np.testing.assert_array_equal(
        arms.raw(core.reference, core.measured), core.reference[arms.columns]
    )


def test_unknown_outputs_exist_in_simulation_only() -> None:
    core = moving(G1)
    names = {c.output.name for c in channels(G1, core, sim=False)}
    assert "head" not in names and "arms" in names
    assert "head" in {c.output.name for c in channels(G1, core, sim=True)}


def test_window_carries_the_motion_ahead_with_its_derivatives() -> None:
    droid = load_contract("franka_droid")
    core = moving(droid)
    channel = next(c for c in channels(droid, core, sim=False) if c.output.name == "arm")
    points = channel.window(core)
    assert 0.1 <= points[-1].after <= 0.2 and len(points) >= 5
    position, velocity, _ = (x[channel.columns] for x in core.state)
    here = position[0]
    for last, point in zip([None, *points], points, strict=False):
        before = velocity if last is None else last.velocities
        step = point.after - (0.0 if last is None else last.after)
        # Positions, velocities and accelerations of a window belong together.
        mean = 0.5 * (before[0] + point.velocities[0])
        assert point.positions[0] - here == pytest.approx(mean * step, abs=2e-4)
        here = point.positions[0]
    core.hold("test")
    for t in DT * np.arange(150, 400):
        core.set_measured(dict(zip(core.names, map(float, core.reference))), t)
        core.tick(t)
    for point in channel.window(core):
        np.testing.assert_allclose(point.positions, core.reference[channel.columns])
        np.testing.assert_allclose(point.velocities, 0.0)


def test_stop_is_in_the_window_as_soon_as_it_begins() -> None:
    droid = load_contract("franka_droid")
    core = moving(droid)
    channel = next(c for c in channels(droid, core, sim=False) if c.output.name == "arm")
    core.estop("test")
    core.set_measured(dict(zip(core.names, map(float, core.reference))), 0.302)
    core.tick(0.302)
    speeds = [abs(p.velocities[0]) for p in channel.window(core)]
    assert speeds[-1] == 0.0 and speeds == sorted(speeds, reverse=True)


def with_base() -> Contract:
    action = tuple(replace(k, enabled=True) for k in G1.action)
    base = Output("base", "/base", "geometry_msgs/msg/Twist", ("base_vx", "base_wz"), 50)
    return replace(G1, action=action, outputs=(base,))


def test_base_speed_ramps_and_falls_to_zero_with_the_rows() -> None:
    contract = with_base()
    core = moving(contract, until=0.1)
    step = contract.joints["base_vx"].limits.acceleration * DT
    assert core.base.command[0] == pytest.approx(50 * step, rel=0.1)
    assert channels(contract, core, sim=False)[0].velocity
    execute(core, [], DT * np.arange(50, 500))
    assert core.base.command[0] == pytest.approx(0.3)
    execute(core, [], DT * np.arange(500, 2000))
    np.testing.assert_array_equal(core.base.command, 0.0)


def test_base_stops_at_a_hold_and_is_off_unless_enabled() -> None:
    core = moving(with_base(), until=0.5)
    core.hold("test")
    execute(core, [], DT * np.arange(250, 800))
    np.testing.assert_array_equal(core.base.command, 0.0)
    assert moving(G1).base.names == ()


def test_an_output_may_not_mix_positions_and_speeds() -> None:
    mixed = Output("m", "/m", "x/msg/X", ("head_yaw", "base_vx"), 50)
    with pytest.raises(ValueError, match="mixes position and velocity"):
        channels(with_outputs(with_base(), mixed), moving(with_base()), sim=True)


class Goal:
    def __init__(self) -> None:
        self.command = types.SimpleNamespace(position=0.0, max_effort=0.0)


class Client:
    """Stands in for rclpy's action client."""

    ready = True

    def __init__(self) -> None:
        self.goals: list[Goal] = []

    def server_is_ready(self) -> bool:
        return self.ready

    def send_goal_async(self, goal: Goal) -> None:
        self.goals.append(goal)


def test_gripper_goal_is_sent_when_the_opening_changes(monkeypatch) -> None:
    seam = pytest.importorskip("wam_ros.nodes.gripper_action")
    module = types.ModuleType("control_msgs.action")
    module.GripperCommand = types.SimpleNamespace(Goal=Goal)
    monkeypatch.setitem(sys.modules, "control_msgs", types.ModuleType("control_msgs"))
    monkeypatch.setitem(sys.modules, "control_msgs.action", module)
    client = Client()
    sender = seam.GripperSender(None, "/gripper", max_effort=20.0, client=client)
    client.ready = False
    sender.send(0.5)
    assert client.goals == []
    client.ready = True
    for position in (0.5, 0.501, 0.502, 0.7, 0.7):
        sender.send(position)
    assert [g.command.position for g in client.goals] == [0.5, 0.7]
    assert client.goals[0].command.max_effort == 20.0
    # In metres the steps are as fine, and where it comes to rest is always sent.
    client.goals.clear()
    sender = seam.GripperSender(None, "/gripper", client=client, scale=-0.085)
    for position in [*np.linspace(0.085, 0.0003, 200), 0.0, 0.0, 0.0]:
        sender.send(float(position))
    asked = [g.command.position for g in client.goals]
    assert asked[0] == 0.085 and asked[-1] == 0.0
    assert 50 < len(asked) < 120 and np.all(np.diff(asked) < 0)


def test_without_control_msgs_the_seam_says_what_to_install(monkeypatch) -> None:
    seam = pytest.importorskip("wam_ros.nodes.gripper_action")
    monkeypatch.setitem(sys.modules, "control_msgs", None)
    monkeypatch.delitem(sys.modules, "control_msgs.action", raising=False)
    assert seam.action_type() is None
    with pytest.raises(RuntimeError, match="control-msgs"):
        seam.GripperSender(None, "/gripper")
