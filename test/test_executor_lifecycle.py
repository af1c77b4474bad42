"""The executor and the simulation as lifecycle nodes, driven by the standard services."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("wam_ros.msg", reason="needs the messages")
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from std_srvs.srv import SetBool

from wam_ros.nodes.convert import to_seconds


def change(robot: Any, node: str, transition: int) -> bool:
    request = ChangeState.Request(transition=Transition(id=transition))
    return bool(robot.call(ChangeState, f"/wam/{node}/change_state", request).success)


def state(robot: Any, node: str) -> int:
    return int(robot.call(GetState, f"/wam/{node}/get_state", GetState.Request()).current_state.id)


def arm(robot: Any) -> Any:
    return robot.call(SetBool, "/wam/arm", SetBool.Request(data=True))


def test_arming_is_possible_while_active_only_and_deactivating_ends_disarmed(bench) -> None:
    robot, start = bench
    start("-p", "autostart:=false", armed=False)
    robot.until(robot.mode("disarmed"))
    assert state(robot, "executor") == State.PRIMARY_STATE_UNCONFIGURED
    assert "not active" in arm(robot).message
    assert change(robot, "executor", Transition.TRANSITION_CONFIGURE)
    assert "not active" in arm(robot).message
    assert change(robot, "executor", Transition.TRANSITION_ACTIVATE)
    robot.run(0.5)
    assert robot.commands == []  # active, and still disarmed
    robot.arm()
    robot.policy = robot.wave
    robot.until(robot.mode("tracking"))
    robot.run(0.5)
    robot.modes.clear()
    robot.reasons.clear()
    assert change(robot, "executor", Transition.TRANSITION_DEACTIVATE)  # chunks go on coming
    robot.until(robot.mode("disarmed"))
    asked = next(i for i, reason in enumerate(robot.reasons) if "deactivated" in reason)
    assert "tracking" not in robot.modes[asked:]
    assert state(robot, "executor") == State.PRIMARY_STATE_INACTIVE
    robot.run(0.3)
    robot.assert_inside()
    robot.commands.clear()
    robot.run(0.5)
    assert robot.commands == []
    assert not arm(robot).success
    assert change(robot, "executor", Transition.TRANSITION_ACTIVATE)
    robot.run(0.3)
    assert robot.state.mode_name == "disarmed"
    robot.arm()
    robot.until(robot.mode("tracking"))


def test_it_arms_itself_in_simulation_once_active_and_not_again(bench) -> None:
    robot, start = bench
    start()
    assert state(robot, "executor") == State.PRIMARY_STATE_ACTIVE
    assert change(robot, "executor", Transition.TRANSITION_DEACTIVATE)
    assert change(robot, "executor", Transition.TRANSITION_ACTIVATE)
    robot.run(0.5)
    assert robot.state.mode_name == "disarmed"


def test_an_inactive_simulation_is_silent(bench, node_process) -> None:
    from rclpy.qos import qos_profile_sensor_data
    from sensor_msgs.msg import JointState
    from stand_in import G1

    robot, start = bench
    robot.publish_states = False
    heard: list[Any] = []
    robot.node.create_subscription(
        JointState, G1.sources[0].topic, heard.append, qos_profile_sensor_data
    )
    node_process(
        *("wam_ros.nodes.sim_node", "-r", "__ns:=/wam", "-p", "robot:=agibot_g1"),
        *("-p", "autostart:=false"),
    )
    start(armed=False)
    robot.until(robot.mode("disarmed"))
    assert change(robot, "sim", Transition.TRANSITION_CONFIGURE)
    robot.run(0.5)
    assert heard == []
    assert change(robot, "sim", Transition.TRANSITION_ACTIVATE)
    robot.until(lambda: len(heard) > 3, 40)
    assert change(robot, "sim", Transition.TRANSITION_DEACTIVATE)
    silent = time.time()
    robot.run(1.0)
    assert max(to_seconds(m.header.stamp) for m in heard) < silent + 0.05


def test_the_executor_keeps_out_of_shared_memory(bench) -> None:
    """There a killed peer can leave a lock behind that whoever publishes to it waits for."""
    robot, start = bench
    process = start()
    robot.policy = robot.wave
    robot.until(robot.mode("tracking"))
    maps = Path(f"/proc/{process.pid}/maps").read_text()
    assert "libfastrtps" in maps  # else this shows nothing
    assert "/dev/shm/fastrtps" not in maps, "see `wam_ros.dds.leave_shared_memory`"


def test_it_arms_itself_no_sooner_than_an_operator_is_there(bench) -> None:
    """In a simulation it arms once; without a heartbeat it would disarm at once, for good."""
    robot, start = bench
    robot.beating = False
    start("-p", "armed:=true", "-p", "deadman:=1.0", armed=False)
    robot.until(robot.mode("disarmed"))
    robot.run(1.0)
    assert robot.state.mode_name == "disarmed" and "no heartbeat" in robot.state.reason
    robot.beating = True
    robot.until(robot.mode("holding"), 10)
