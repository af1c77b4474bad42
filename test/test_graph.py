"""The whole graph: real nodes in real processes over real DDS."""

from __future__ import annotations

import os
import signal
import time

import numpy as np
import pytest

client_module = pytest.importorskip("wam_ros.nodes.client", reason="needs ROS 2 and the messages")


def test_an_instruction_on_the_topic_is_obeyed_and_estop_latches(graph) -> None:
    g = graph(seed="3")
    c = g.client
    assert c.say("sing me a song")
    g.until(lambda: "cannot understand" in c.policy.reason, 10)
    assert c.executor.mode_name == "holding"
    assert c.executor.chunks_accepted == 0

    g.carry_out("touch the green block with the right hand")
    assert c.sim.distance < 0.03
    assert c.executor.chunks_accepted > 0
    assert c.policy.instruction == "touch the green block with the right hand"
    assert list(c.observation.view_names) == ["top_head", "hand_left", "hand_right"]
    assert (c.observation.views[0].height, c.observation.views[0].width) == (176, 320)
    assert len(c.observation.state) == 20

    assert c.estop()
    accepted = c.executor.chunks_accepted
    c.spin(1.0)
    assert c.executor.mode_name == "estopped"
    assert c.executor.chunks_accepted == accepted

    refused, why = c.arm(True)
    assert not refused
    assert "reset" in why
    assert c.reset()[0]
    g.until(lambda: c.executor.mode_name == "disarmed", 5)
    assert c.arm(True)[0]
    g.until(lambda: c.executor.armed, 5)
    assert c.arm(False)[0]
    g.until(lambda: not c.executor.armed, 5)


@pytest.mark.parametrize(
    ("robot", "text"),
    [
        ("franka_droid", "touch the red block"),
        ("yam", "touch the green block with the right hand"),
    ],
)
def test_the_other_robots_obey_too(graph, robot: str, text: str) -> None:
    g = graph(robot, seed="1")
    g.carry_out(text)


def test_the_graph_follows_simulated_time(graph) -> None:
    g = graph(use_sim_time="true", seed="4")
    c = g.client
    assert c.observation.header.stamp.sec < 600  # time of the simulation, not of the wall
    g.carry_out("touch the red block with the left hand")


def test_a_lost_camera_makes_the_arm_hold_until_it_is_back(graph) -> None:
    g = graph(cadence="sliding", seed="2")
    c = g.client
    assert c.say("touch the red block with the left hand")
    g.until(lambda: c.executor.mode_name == "tracking", 15)
    g.set_parameter("sim", "drop_camera", "hand_left")
    g.until(lambda: c.executor.mode_name == "holding", 10)
    g.until(lambda: "hand_left" in c.diagnostics["perception"][1], 10)
    g.set_parameter("sim", "drop_camera", "")
    g.until(lambda: c.sim.success)


def test_sync_cadence_with_a_slow_policy(graph) -> None:
    g = graph(cadence="sync", latency="0.6", seed="1")
    g.carry_out("touch the blue block with the left hand", 60)
    assert g.client.policy.cadence == "sync"
    assert g.client.policy.latency_p50 >= 0.6


def test_a_jammed_arm_trips_the_executor_which_can_be_armed_again(graph) -> None:
    g = graph(seed="5")
    c = g.client
    # Of all joints this one has to turn farthest: the left arm gets out of the way.
    g.set_parameter("sim", "jam_joint", "left_arm_joint2")
    assert c.say("touch the red block with the right hand")
    g.until(lambda: c.executor.reason.startswith("following error"), 30)
    g.until(lambda: c.executor.mode_name == "disarmed", 5)
    assert "left_arm_joint2" in c.executor.reason
    accepted = c.executor.chunks_accepted
    c.spin(1.0)
    assert c.executor.chunks_accepted == accepted  # nothing moves it until somebody arms it

    assert c.say("")
    g.set_parameter("sim", "jam_joint", "")
    g.until(lambda: c.arm(True)[0], 10)  # not while it still moves
    g.until(lambda: c.executor.mode_name == "holding", 10)
    g.carry_out("touch the red block with the right hand")


def test_the_scene_can_be_disturbed_on_the_way(graph) -> None:
    from visualization_msgs.msg import MarkerArray

    g = graph(seed="1")
    c = g.client
    places: list[np.ndarray] = []

    def keep(message: MarkerArray) -> None:
        for m in message.markers:
            if m.ns == "red_block":
                p = m.pose.position
                places.append(np.array([p.x, p.y, p.z]))

    c.on(MarkerArray, "sim/objects", keep)
    assert "no instruction" in c.set_parameter("sim", "disturb", "move")
    assert c.say("touch the red block with the left hand")
    assert "none of move, push, dark" in c.set_parameter("sim", "disturb", "kick")
    before = places[-1]
    if c.set_parameter("sim", "disturb", "move"):  # the hand is at the block already
        g.carry_out("touch the green block with the right hand")
        assert c.say("touch the red block with the left hand")
        g.until(lambda: not c.set_parameter("sim", "disturb", "move"), 10)
    g.until(lambda: np.linalg.norm(places[-1] - before) > 0.04, 5)
    g.carry_out("touch the red block with the left hand")
    g.set_parameter("sim", "disturb", "push")


def test_a_killed_policy_comes_back_and_the_arm_holds_meanwhile(graph) -> None:
    g = graph(seed="2")
    c = g.client
    assert c.say("touch the red block with the left hand")
    g.until(lambda: c.executor.mode_name == "tracking", 15)
    os.kill(g.supervisor.pids["policy"], signal.SIGKILL)
    c.policy = None
    g.until(lambda: c.executor.mode_name == "holding", 10)
    # The killed one may have left a lock in shared memory: who sends to it waits up to 20 s.
    g.until(lambda: c.policy is not None and c.policy.state_name == "ready", 45)
    assert c.policy.instruction == ""  # cleared after a crash
    g.carry_out("touch the red block with the left hand")


def test_a_request_is_made_again_when_its_answer_is_lost() -> None:
    """A server that does not know the client's reader yet drops the answer."""
    from rclpy.task import Future

    asked: list[Future] = []

    def ask() -> Future:
        asked.append(Future())
        return asked[-1]

    class Client(client_module.GraphClient):
        def __init__(self) -> None:
            """No graph."""

        def spin(self, seconds: float) -> None:
            time.sleep(seconds)
            if len(asked) == 2:
                asked[-1].set_result("done")

    assert Client()._asked(ask, time.monotonic() + 10.0, 0.1).result() == "done"
    assert len(asked) == 2
    asked.clear()
    assert not Client()._asked(ask, time.monotonic() + 0.05).done() and len(asked) == 1


def test_executor_on_hardware_starts_disarmed_and_sends_nothing(node_process) -> None:
    node_process(
        "wam_ros.nodes.executor_node", "-r", "__ns:=/wam", "-p", "robot:=yam", "-p", "armed:=true"
    )
    client = client_module.GraphClient()
    try:
        end = time.monotonic() + 15
        while time.monotonic() < end and client.executor is None:
            client.spin(0.1)
        assert client.executor is not None
        client.spin(0.5)
        assert client.executor.mode_name == "disarmed"
        assert not client.executor.armed
    finally:
        client.close()


@pytest.mark.parametrize("node", ["perception", "policy", "executor", "sim"])
def test_unknown_robot_ends_a_node_with_a_clear_message(node_process, node: str) -> None:
    process = node_process(f"wam_ros.nodes.{node}_node", "-p", "robot:=agibot_g9")
    assert process.wait(timeout=30) == 2
    assert "Did you mean 'agibot_g1'" in process.log.read_text()
