"""Bags played back into a graph."""

from __future__ import annotations

import math
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from synthetic import START, Scene

from wam_ros.contract import Contract
from wam_ros.nodes.replay_player import chunks
from wam_ros.recording.playback import Playback

ROOT = Path(__file__).resolve().parent.parent.parent


def replay(bag: Path, *more: str, seconds: float = 60.0) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "wam_ros.cli", "replay", str(bag), *more],
        capture_output=True, text=True, timeout=seconds, cwd=ROOT,
    )  # fmt: skip


def test_observations_go_out_as_they_were_seen(domain_id: int, tmp_path: Path) -> None:
    import rclpy
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.qos import qos_profile_sensor_data as qos
    from wam_ros.msg import Observation

    bag = Scene(seconds=3.0).write(tmp_path / "bag")
    heard: list = []
    rclpy.init()
    node = rclpy.create_node("listener")
    node.create_subscription(Observation, "/wam/observation", heard.append, qos)
    spin = SingleThreadedExecutor()
    spin.add_node(node)
    process = subprocess.Popen(
        [sys.executable, "-m", "wam_ros.cli", "replay", str(bag)], cwd=ROOT, text=True,
        stdout=subprocess.PIPE,
    )  # fmt: skip
    end = time.monotonic() + 60.0
    while process.poll() is None and time.monotonic() < end:
        spin.spin_once(timeout_sec=0.05)
    node.destroy_node()
    rclpy.try_shutdown()
    expected = list(Playback(bag).observations())
    assert process.wait(5) == 0 and f"played {len(expected)}" in process.stdout.read()
    assert len(heard) > 0.5 * len(expected)
    stamps = [m.header.stamp.sec + m.header.stamp.nanosec * 1e-9 for m in heard]
    assert stamps == sorted(stamps) and abs(stamps[-1] - time.time()) < 60
    for message in heard[:: len(heard) // 4]:
        row = expected[message.sequence]
        assert list(message.state) == row.state.tolist()
        for name, view in zip(message.view_names, message.views, strict=True):
            assert np.array_equal(
                np.frombuffer(view.data, np.uint8).reshape(view.height, view.width, 3),
                row.views[name],
            )


def test_chunks_hold_the_recorded_actions(tmp_path: Path) -> None:
    playback = Playback(Scene(seconds=3.0).write(tmp_path / "bag"))
    action, period = playback.rows.action, playback.contract.rates.step_period
    told = np.full_like(action, np.nan)
    for chunk in chunks(playback, 100.0):
        first = round((chunk.t0 - 100.0) / period)
        assert chunk.t0 == pytest.approx(100.0 + first * period)
        assert chunk.horizon == playback.contract.rates.horizon
        rows = np.minimum(first + np.arange(chunk.horizon), len(action) - 1)
        np.testing.assert_array_equal(chunk.actions, action[rows])
        told[rows] = chunk.actions
    np.testing.assert_array_equal(told, action)


def test_nobody_to_play_to(domain_id: int, tmp_path: Path) -> None:
    bag = Scene(seconds=1.5).write(tmp_path / "bag")
    found = replay(bag, "--what", "actions")
    assert found.returncode == 1 and "no executor answers" in found.stderr
    assert replay(tmp_path / "nothing").returncode == 1


@pytest.mark.slow
def test_actions_move_the_simulated_robot(node_process, tmp_path: Path) -> None:
    """From the home pose along recorded commands: the executor takes every chunk."""
    node_process("wam_ros.nodes.sim_node", "-r", "__ns:=/wam", "-p", "robot:=yam")
    node_process(
        "wam_ros.nodes.executor_node", "-r", "__ns:=/wam",
        "-p", "robot:=yam", "-p", "sim:=true", "-p", "armed:=true",
    )  # fmt: skip

    def from_home(contract: Contract, name: str, t: float) -> float:
        found = contract.joints[name]
        arm = contract.group_of(name).role == "arm"
        return found.home + (0.2 * (1.0 - math.cos(t - START)) if arm else 0.0)

    bag = Scene(seconds=4.0, motion=from_home).write(tmp_path / "bag")
    found = replay(bag, "--what", "actions")
    for _ in range(5):  # the executor arms once joint states have come
        if "is disarmed" not in found.stderr:
            break
        time.sleep(2.0)
        found = replay(bag, "--what", "actions")
    sent, accepted = re.findall(r"\d+", found.stdout)[:2]
    assert int(sent) >= 6 and sent == accepted, found
