"""Raw subscriptions emptied in rounds: nothing lost that fits, in order, in the right time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import rclpy
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message
from rosgraph_msgs.msg import Clock
from std_msgs.msg import String

from wam_ros.nodes.inbox import Inbox
from wam_ros.recording.recorder import Arrival

DEEP = QoSProfile(depth=1000, reliability=ReliabilityPolicy.RELIABLE)


@pytest.fixture
def graph(domain_id: int) -> Iterator[Callable[[bool], Any]]:
    rclpy.init()

    def make(simulated: bool) -> Any:
        use = Parameter("use_sim_time", Parameter.Type.BOOL, simulated)
        return rclpy.create_node("inbox_test", parameter_overrides=[use])

    yield make
    rclpy.try_shutdown()


def publisher(node: Any, kind: Any, topic: str) -> Any:
    made = node.create_publisher(kind, topic, DEEP)
    end = time.monotonic() + 20
    while not made.get_subscription_count():
        assert time.monotonic() < end
        time.sleep(0.02)
    time.sleep(0.3)
    return made


def wait_for(box: Inbox, found: list[Arrival], count: int) -> None:
    end = time.monotonic() + 20
    while len(found) < count and time.monotonic() < end:
        box.empty()
        time.sleep(0.01)


def test_all_that_waits_comes_in_order_of_arrival(graph) -> None:
    node = graph(False)
    found: list[Arrival] = []
    box = Inbox(node, found.extend)
    for topic in ("/a", "/b"):
        box.add(String, topic, 500)
    outs = [publisher(node, String, t) for t in ("/a", "/b")]
    for k in range(300):
        outs[k % 2].publish(String(data=str(k)))
        time.sleep(0.0005)
    wait_for(box, found, 300)
    texts = [deserialize_message(a.data, String).data for a in found]
    assert texts == [str(k) for k in range(300)]
    assert [a.topic for a in found[:4]] == ["/a", "/b", "/a", "/b"]
    assert [a.log_ns for a in found] == sorted(a.log_ns for a in found)
    assert abs(found[-1].log_ns * 1e-9 - time.time()) < 60
    assert abs(found[-1].arrival - time.monotonic()) < 60


def test_more_than_fits_loses_the_oldest_and_the_numbers_tell(graph) -> None:
    node = graph(False)
    found: list[Arrival] = []
    box = Inbox(node, found.extend)
    box.add(String, "/a", 20)
    out = publisher(node, String, "/a")
    for k in range(50):
        out.publish(String(data=str(k)))
        time.sleep(0.002)
    time.sleep(0.3)
    wait_for(box, found, 20)
    texts = [deserialize_message(a.data, String).data for a in found]
    assert texts == [str(k) for k in range(30, 50)]
    numbers = [a.sequence for a in found]
    assert numbers == list(range(numbers[0], numbers[0] + 20))


def test_simulated_time_is_what_the_clock_showed_on_arrival(graph) -> None:
    """Not what it shows when the round comes: a simulation may run far ahead meanwhile."""
    node = graph(True)
    found: list[Arrival] = []
    box = Inbox(node, found.extend)
    box.add(String, "/a", 100)
    clock, out = publisher(node, Clock, "/clock"), publisher(node, String, "/a")
    for k in range(1, 6):
        message = Clock()
        message.clock.sec = 100 * k
        clock.publish(message)
        time.sleep(0.05)
        out.publish(String(data=str(k)))
        time.sleep(0.05)
    wait_for(box, found, 5)
    told = {deserialize_message(a.data, String).data: a.log_ns for a in found}
    assert told == {str(k): 100 * k * 10**9 for k in range(1, 6)}
