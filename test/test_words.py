"""Instructions that were missed on the topic, and what must not be undone by their echo."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("wam_ros.msg", reason="needs ROS 2 and the messages")
from std_msgs.msg import String
from std_srvs.srv import Trigger
from wam_ros.msg import PolicyState, SimState

from wam_ros.nodes.qos import LATCHED
from wam_ros.nodes.words import Words, wall_stamp


def echo(text: str, said_at: int) -> PolicyState:
    return PolicyState(instruction=text, instruction_stamp=wall_stamp(said_at))


def test_stamps_keep_their_nanoseconds() -> None:
    stamp = wall_stamp(1_796_045_753_194_359_613)
    assert (stamp.sec, stamp.nanosec) == (1_796_045_753, 194_359_613)


def test_a_policy_that_was_never_told_anything_says_nothing() -> None:
    assert Words().echoed(PolicyState()) is None


def test_what_was_decided_here_is_newer_than_what_was_said_before() -> None:
    words = Words()
    before = time.time_ns()
    words.mark()
    assert words.echoed(echo("touch", before)) is None
    assert words.echoed(echo(" touch ", time.time_ns())) == "touch"


@given(st.lists(st.tuples(st.sampled_from(["", "A", "B"]), st.booleans(), st.integers(0, 3))))
def test_whatever_is_missed_on_the_topic_the_last_word_is_in_force(
    said: list[tuple[str, bool, int]],
) -> None:
    """Each word may be missed on the topic; echoes come late, and some are never sent."""
    words, heard = Words(), ""
    echoes: list[PolicyState] = []
    for at, (text, missed, read) in enumerate(said, start=1):
        if not missed:
            heard = words.said(String(data=text), at * 10**9) or ""
        echoes.append(echo(text, at * 10**9))
        for _ in range(read):
            if echoes:
                newer = words.echoed(echoes.pop(0))
                heard = heard if newer is None else newer
        echoes = echoes[-1:]  # latched: the newest takes the place of the others
    for message in echoes:
        newer = words.echoed(message)
        heard = heard if newer is None else newer
    assert heard == (said[-1][0] if said else "")


def test_a_message_that_comes_after_its_echo_undoes_nothing() -> None:
    """The middleware repairs a lost message; meanwhile the arm was told to hold."""
    words = Words()
    # Where the middleware gives no time, and nothing was echoed, a hold must not be overheard.
    assert words.said(String(data=""), 0) == ""
    said_at = time.time_ns()
    assert words.echoed(echo("touch", said_at)) == "touch"
    words.mark()
    assert words.said(String(data="touch"), said_at) is None
    assert words.said(String(data="touch"), said_at + 130_000) is None  # a goal's own words
    assert words.said(String(data="touch"), said_at + 1_000_000_000) == "touch"
    assert words.said(String(data="touch"), said_at - 3_600_000_000_000) == "touch"  # another clock


@pytest.mark.parametrize("service", ["_on_hold", "_on_arm"])
def test_what_waits_to_be_read_was_said_before_the_service_was_called(service: str) -> None:
    """On a simulated clock that stands still it waits for as long."""
    from wam_ros.nodes.executor_node import ExecutorNode

    done: list[str] = []
    waiting = [(String(data="touch" if service == "_on_hold" else ""), 1)]
    node = SimpleNamespace(
        _words=Words(),
        _instructions=SimpleNamespace(take_stamped=lambda: waiting.pop() if waiting else None),
        _policies=SimpleNamespace(take=lambda: None),
        _core=SimpleNamespace(
            light_tick=True,
            resume=lambda: done.append("resume"),
            pause=lambda reason: done.append("pause"),
            arm=lambda now: done.append("arm") or "",
        ),
        _active=True,
        _deadman=0.0,
        _now=lambda: 0.0,
        _ask=lambda request, late: request() or "",
        _answer=lambda response, reason, text: reason,
    )
    node._read_instruction = lambda: ExecutorNode._read_instruction(node)
    getattr(ExecutorNode, service)(node, SimpleNamespace(data=True), None)
    node._read_instruction()
    assert done == (["resume", "pause"] if service == "_on_hold" else ["pause", "arm"])


def test_the_executor_hears_from_the_policy_what_it_missed(bench) -> None:
    robot, start = bench
    start()
    states = robot.node.create_publisher(PolicyState, "/wam/policy_state", LATCHED)
    robot.policy = robot.wave
    robot.until(robot.mode("tracking"))
    said_at = time.time_ns()
    robot.instruction.publish(String(data=""))
    robot.until(robot.mode("holding"))
    states.publish(echo("touch the red block", said_at))  # older than the hold
    robot.run(0.7)
    assert robot.state.mode_name == "holding"
    assert "held (instruction is empty)" in robot.state.reason

    states.publish(echo("touch the red block", time.time_ns()))
    robot.until(robot.mode("tracking"))

    said_at = time.time_ns()
    held = robot.call(Trigger, "/wam/hold", Trigger.Request())
    assert held.success, held.message
    robot.until(robot.mode("holding"))
    states.publish(echo("touch the red block", said_at))
    robot.run(0.7)
    assert robot.state.mode_name == "holding"
    states.publish(echo("touch the red block", time.time_ns()))
    robot.until(robot.mode("tracking"))

    states.publish(echo("", time.time_ns()))  # the empty one was missed on the topic
    robot.until(robot.mode("holding"))
    robot.run(0.3)
    assert "instruction is empty" in robot.state.reason
    robot.assert_inside()


def test_a_simulation_that_starts_late_judges_what_is_in_force(bench, node_process) -> None:
    robot, start = bench
    robot.publish_states = False
    start(armed=False)
    heard: list[SimState] = []
    robot.node.create_subscription(SimState, "/wam/sim/state", heard.append, 10)
    states = robot.node.create_publisher(PolicyState, "/wam/policy_state", LATCHED)
    states.publish(echo("touch the red block", time.time_ns()))
    node_process("wam_ros.nodes.sim_node", "-r", "__ns:=/wam", "-p", "robot:=agibot_g1")
    robot.until(lambda: bool(heard) and heard[-1].task == "touch the red block", 40)
    states.publish(echo("", time.time_ns()))
    robot.until(lambda: heard[-1].task == "")
