"""Raw subscriptions that a thread empties a few times a second, all that waits at once.

Served one by one by the ROS executor, a 500 Hz topic costs a wake-up, a wait set and a callback per
message: half a core for a few topics, and on a busy machine more than there is. Here messages wait
in the middleware's own histories, which its native threads fill and which are deep enough for
seconds; emptying them costs a call per message and twenty wake-ups a second.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_right
from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock

from wam_ros.nodes.mailbox import Unspun
from wam_ros.nodes.scheduling import behave_as_batch
from wam_ros.recording.monitor import header_stamp
from wam_ros.recording.recorder import Arrival

PERIOD = 0.05
"""Seconds between two rounds."""


class Inbox:
    """Empties raw subscriptions into ``deliver``, a list of messages in order of arrival a time.

    Parameters
    ----------
    node
        Owns the subscriptions; its parameter ``use_sim_time`` decides whose time ``log_ns`` is.
    deliver
        Gets what waited; called by one thread at a time.
    nice
        Niceness of the thread. The middleware's threads are not touched: they have little to do
        and must do it in time.
    """

    def __init__(self, node: Node, deliver: Callable[[list[Arrival]], None], nice: int = 0) -> None:
        self._node, self._deliver, self._nice = node, deliver, nice
        self._group = Unspun()
        self._subscriptions: list[tuple[str, Any, int]] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="inbox", daemon=True)
        self._clock: Any = None
        self._ticks: tuple[list[int], list[int]] = ([], [])
        if node.get_parameter("use_sim_time").value:
            self._clock = self._subscribe(Clock, "/clock", profile(1000))

    def add(self, kind: Any, topic: str, depth: int, latched: bool = False) -> None:
        """Listen to ``topic``, of message class ``kind``; ``depth`` messages may wait."""
        subscription = self._subscribe(kind, topic, profile(depth, latched))
        with self._lock:
            self._subscriptions.append((topic, subscription, depth))

    def start(self) -> None:
        """Begin to empty them."""
        self._thread.start()

    def stop(self) -> None:
        """Empty them once more and end."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self.empty()

    def empty(self) -> None:
        """Deliver all that waits now; what arrives meanwhile is left for the next time."""
        with self._lock:
            # Receive stamps are wall-clock times; warnings count on the monotonic clock.
            offset = time.time() - time.monotonic()
            if self._clock is not None:
                self._read_clock()
            found: list[Arrival] = []
            for topic, subscription, depth in self._subscriptions:
                kind = subscription.msg_type
                handle = subscription.handle
                with handle:
                    for _ in range(depth):
                        taken = handle.take_message(kind, True)
                        if taken is None:
                            break
                        data, info = taken
                        received = info["received_timestamp"]
                        found.append(
                            Arrival(
                                topic, data, self._log_time(received), info["source_timestamp"],
                                info["publication_sequence_number"], received * 1e-9 - offset,
                            )
                        )  # fmt: skip
            if found:
                found.sort(key=_by_arrival)
                self._deliver(found)

    def _subscribe(self, kind: Any, topic: str, qos: QoSProfile) -> Any:
        return self._node.create_subscription(
            kind, topic, _nothing, qos, callback_group=self._group, raw=True
        )

    def _run(self) -> None:
        behave_as_batch(self._nice)
        due = time.monotonic()
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            due = max(due + PERIOD, time.monotonic())
            self.empty()

    def _read_clock(self) -> None:
        received, clock = self._ticks
        handle = self._clock.handle
        with handle:
            while (taken := handle.take_message(Clock, True)) is not None:
                stamp = header_stamp(taken[0])  # a Clock is one Time, as a Header's beginning is
                if stamp is not None:
                    received.append(taken[1]["received_timestamp"])
                    clock.append(round(stamp * 1e9))
        del received[:-2000], clock[:-2000]

    def _log_time(self, received: int) -> int:
        """Arrival in ROS time: the middleware's stamp, or what a simulated clock showed then."""
        if self._clock is None:
            return received
        at = bisect_right(self._ticks[0], received) - 1
        return self._ticks[1][max(at, 0)] if self._ticks[1] else 0


def profile(depth: int, latched: bool = False) -> QoSProfile:
    """Best effort takes what any publisher offers; latched topics are asked for reliably."""
    if latched:
        return QoSProfile(
            depth=depth,
            reliability=ReliabilityPolicy.RELIABLE,
            durability=DurabilityPolicy.TRANSIENT_LOCAL,
        )
    return QoSProfile(
        depth=depth,
        history=HistoryPolicy.KEEP_LAST,
        reliability=ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.VOLATILE,
    )


def _by_arrival(message: Arrival) -> float:
    return message.arrival


def _nothing(_: Any) -> None:
    """Never called: no executor serves these subscriptions."""
