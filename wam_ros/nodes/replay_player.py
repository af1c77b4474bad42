"""Play a bag into a running graph: what was seen to the policy, or what was done to the robot."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data

from wam_ros import dds
from wam_ros.contract.data import ActionChunk, Observation
from wam_ros.contract.model import Contract
from wam_ros.msg import ActionChunk as ActionChunkMsg
from wam_ros.msg import ExecutorState
from wam_ros.msg import Observation as ObservationMsg
from wam_ros.nodes.convert import chunk_to_msg, observation_to_msg
from wam_ros.nodes.qos import LATCHED, RELIABLE
from wam_ros.recording.playback import Playback
from wam_ros.recording.reader import BagError
from wam_ros.recording.rows import RowsError


def play(bag: Path, what: str, rate: float, namespace: str) -> int:
    """Play ``bag``; 0 when it went through, 1 when the graph or the bag does not allow it.

    Observations get the time of now as their stamp and go out at the action rate times ``rate``.
    Actions go out as chunks of one horizon, three quarters of it apart, as a policy would send
    them; the executor must be armed and stand near the first row.
    """
    try:
        playback = Playback(bag)
    except (BagError, RowsError) as err:
        print(f"wam replay: {err}", file=sys.stderr)
        return 1
    dds.use_profile()  # observations carry images; must precede rclpy.init
    rclpy.init()
    node = rclpy.create_node("wam_replay", namespace=f"/{namespace.strip('/')}")
    try:
        if what == "observations":
            return _observations(node, playback, rate)
        return _actions(node, playback)
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


def _now(node: Node) -> float:
    return float(node.get_clock().now().nanoseconds) * 1e-9


def _observations(node: Node, playback: Playback, rate: float) -> int:
    end = time.monotonic() + 2.0  # discovery takes its time
    while time.monotonic() < end:
        rclpy.spin_once(node, timeout_sec=0.1)
    if node.get_publishers_info_by_topic(node.resolve_topic_name("observation")):
        print("wam replay: somebody publishes observations already; stop it", file=sys.stderr)
        return 1
    publisher = node.create_publisher(ObservationMsg, "observation", qos_profile_sensor_data)
    end = time.monotonic() + 5.0
    while time.monotonic() < end and not publisher.get_subscription_count():
        rclpy.spin_once(node, timeout_sec=0.1)
    contract = playback.contract
    period = contract.rates.step_period / rate
    deadline = time.monotonic()
    count = 0
    for seen in playback.observations():
        delay = deadline - time.monotonic()
        time.sleep(max(0.0, delay))
        now = Observation(_now(node), seen.views, seen.state, seen.ages, seen.skew, seen.sequence)
        publisher.publish(observation_to_msg(now, contract.robot, contract.state_names))
        count += 1
        deadline += period
    alone = "" if publisher.get_subscription_count() else "; nobody listens"
    print(f"played {count} observations{alone}")
    return 0


def _actions(node: Node, playback: Playback) -> int:
    heard: list[Any] = []
    node.create_subscription(ExecutorState, "executor_state", heard.append, LATCHED)
    publisher = node.create_publisher(ActionChunkMsg, "action_chunk", RELIABLE)
    end = time.monotonic() + 5.0
    while time.monotonic() < end and not (heard and publisher.get_subscription_count()):
        rclpy.spin_once(node, timeout_sec=0.1)
    if not heard:
        print("wam replay: no executor answers; start one with `wam launch ROBOT`", file=sys.stderr)
        return 1
    if not heard[-1].armed:
        print(f"wam replay: the executor is {heard[-1].mode_name}; `wam arm` it", file=sys.stderr)
        return 1
    sent = 0
    worst = 0.0
    start = _now(node)
    for chunk in chunks(playback, start):
        while _now(node) < chunk.t0:
            rclpy.spin_once(node, timeout_sec=0.005)
        publisher.publish(chunk_to_msg(chunk, playback.contract.robot))
        sent += 1
        if heard[-1].mode_name == "tracking":
            worst = max(worst, float(heard[-1].following_error))
    last = start + len(playback.rows.t) * playback.contract.rates.step_period
    while _now(node) < last:
        rclpy.spin_once(node, timeout_sec=0.02)
    state = heard[-1]
    refused = f", {state.reason}" if state.reason and not state.chunks_accepted else ""
    print(
        f"sent {sent} chunks, {state.chunks_accepted} accepted in all, largest following error "
        f"{worst:.3f}{refused}"
    )
    return 0 if state.chunks_accepted else 1


def chunks(playback: Playback, start: float) -> Iterator[ActionChunk]:
    """Chunks of one horizon from the recorded actions; row 0 of the first is due at ``start``."""
    contract: Contract = playback.contract
    horizon, period = contract.rates.horizon, contract.rates.step_period
    action = playback.rows.action
    for sequence, first in enumerate(range(0, len(action), max(1, 3 * horizon // 4))):
        rows = np.clip(first + np.arange(horizon), 0, len(action) - 1)
        yield ActionChunk(
            t0=start + first * period,
            step_period=period,
            actions=action[rows],
            names=contract.action_names,
            kinds=contract.action_kinds,
            sequence=sequence + 1,
            anchor_state=playback.rows.state[min(first, len(action) - 1)],
            inference_start=start + first * period,
            inference_end=start + first * period,
            instruction=playback.instruction,
        )
