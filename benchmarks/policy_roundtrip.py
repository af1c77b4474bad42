"""What node, messages and each protocol add around a model that costs nothing.

Peers: `wam serve` for the native and the RoboArena dialect; for openpi, LingBot-VA and GR00T the
small servers of the tests, which were written from those protocols. Every server runs in a process
of its own on this machine. Three views of 320x180.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import arguments, finish, spread

from wam_ros.contract import load_contract
from wam_ros.contract.data import Observation
from wam_ros.policy.base import Window
from wam_ros.policy.hold import HoldPolicy
from wam_ros.policy.registry import make

ROOT = Path(__file__).resolve().parent.parent
GOALS = {"node": 8.0, "wam_serve 1 frame": 10.0, "roboarena 1 frame": 10.0}


def droid_contract(folder: Path) -> str:
    """The shipped DROID contract; its views have 320x180 pixels."""
    return "franka_droid"


def look(contract: Any, rng: Any, t0: float, frames: int) -> Window:
    """A window of ``frames`` observations of noise, which no transport can squeeze."""
    shape = (contract.view_height, contract.view_width, 3)
    home = np.array([contract.joints[n].home for n in contract.state_names])
    return Window(
        tuple(
            Observation(
                t0 - 0.2 * (frames - 1 - i),
                {c.name: rng.integers(0, 256, shape, np.uint8) for c in contract.cameras},
                home,
            )
            for i in range(frames)
        ),
        executed_rows=24.0,
    )


def measure(call: Callable[[Window], Any], contract: Any, rng: Any, n: int, frames: int) -> Any:
    """Seconds of ``n`` calls after five that do not count."""
    seconds = []
    for i in range(n + 5):
        window = look(contract, rng, 10.0 * (i + 1), frames)
        begin = time.perf_counter()
        call(window)
        seconds.append(time.perf_counter() - begin)
    return spread(seconds[5:], 1e3)


# ---- servers -----------------------------------------------------------------------------------


def peer(name: str) -> None:
    """Run one of the tests' servers until the parent ends; prints its address."""
    sys.path.insert(0, str(ROOT / "test" / "serving"))
    import protocol_servers as peers

    if name == "gr00t":
        keys = ["joint_position", "gripper_position"]
        modalities = {
            "video": {
                "modality_keys": ["exterior_image_1_left", "exterior_image_2_left",
                                  "wrist_image_left"],
                "delta_indices": [0],
            },
            "state": {"modality_keys": keys, "delta_indices": [0]},
            "action": {"modality_keys": keys, "delta_indices": list(range(16))},
            "language": {"modality_keys": ["task"], "delta_indices": [0]},
        }  # fmt: skip
        rows = {"joint_position": np.zeros((1, 16, 7), np.float32)}
        rows["gripper_position"] = np.zeros((1, 16, 1), np.float32)
        server = peers.Gr00t(modalities, rows)
        print(server.url, flush=True)
        sys.stdin.read()
        server.stop()
        return
    handler = {
        "openpi": lambda: peers.OpenPi(np.zeros((10, 8), np.float32)),
        "lingbot_va": lambda: peers.LingBotVa(channels=8, frames=3, steps=8),
    }[name]()
    handler.seen = _Forgetful()

    async def run() -> None:
        from websockets.asyncio.server import serve

        async with serve(handler, "127.0.0.1", 0, compression=None, max_size=None) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            print(f"ws://127.0.0.1:{port}", flush=True)
            await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)

    asyncio.run(run())


class _Forgetful(list):  # type: ignore[type-arg]
    """The tests' servers remember every request; a benchmark should not fill the memory."""

    def append(self, item: Any) -> None:
        pass


class Server:
    """A server in a process of its own; it ends when its input closes or at `stop`."""

    def __init__(self, command: list[str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=ROOT,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        self.url = next((w for w in line.split() if "://" in w), "")
        if not self.url:
            raise RuntimeError(f"{' '.join(command)} did not start: {line!r}")

    def stop(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.terminate()
        self.process.wait(10)


def protocol(name: str, robot: str, n: int, rng: Any, frames: int) -> Any:
    """Round trip of `RemotePolicy.infer` over ``name``."""
    if name in ("wam_serve", "roboarena"):
        dialect = "native" if name == "wam_serve" else "roboarena"
        command = ["-m", "wam_ros.serving.cli", "serve", robot, "--dialect", dialect]
        server = Server([*command, "--port", "0"])
    else:
        server = Server([__file__, "--peer", name])
    contract = load_contract(robot)
    backend = make(name, {"server": server.url, "server_timeout": 10.0, "server_wait": 5.0})
    try:
        backend.configure(contract)
        backend.reset("hold still")
        return measure(backend.infer, contract, rng, n, frames)
    finally:
        backend.close()
        server.stop()


# ---- the node ----------------------------------------------------------------------------------


def node(robot: str, n: int, rng: Any, backend: str = "hold", server: str = "") -> Any:
    """From publishing an Observation to receiving its chunk, both processes on this machine."""
    os.environ["ROS_DOMAIN_ID"] = str(40 + os.getpid() % 40)
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    import rclpy
    from rclpy.qos import QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
    from std_msgs.msg import String
    from wam_ros.msg import ActionChunk
    from wam_ros.msg import Observation as ObservationMsg

    from wam_ros import dds
    from wam_ros.nodes.convert import observation_to_msg, to_seconds

    os.environ[dds.VARIABLE] = dds.profile_path()
    contract = load_contract(robot)
    parameters = {"robot": robot, "policy": backend, "cadence": "sliding", "period": 0.001}
    if server:
        parameters["server"] = server
    line = [sys.executable, "-m", "wam_ros.nodes.policy_node", "--ros-args"]
    for name, value in parameters.items():
        line += ["-p", f"{name}:={value}"]
    process = subprocess.Popen(line, cwd=ROOT, stderr=subprocess.DEVNULL)
    rclpy.init()
    client = rclpy.create_node("roundtrip")
    arrived: dict[float, float] = {}
    event = threading.Event()

    def on_chunk(message: Any) -> None:
        arrived[round(to_seconds(message.header.stamp), 6)] = time.perf_counter()
        event.set()

    reliable = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
    client.create_subscription(ActionChunk, "action_chunk", on_chunk, reliable)
    observations = client.create_publisher(ObservationMsg, "observation", qos_profile_sensor_data)
    say = client.create_publisher(String, "instruction", 10)
    spinner = threading.Thread(target=rclpy.spin, args=(client,), daemon=True)
    spinner.start()
    seconds, lost = [], 0
    try:
        end = time.monotonic() + 60
        while observations.get_subscription_count() < 1 or say.get_subscription_count() < 1:
            if time.monotonic() > end:
                raise RuntimeError("the policy node did not come up in 60 s")
            time.sleep(0.1)
        time.sleep(2.0)
        say.publish(String(data="hold still"))
        time.sleep(0.5)
        for i in range(n + 5):
            t0 = round(time.time(), 6)
            observation = look(contract, rng, t0, 1).newest
            message = observation_to_msg(observation, contract.robot, contract.state_names)
            event.clear()
            begin = time.perf_counter()
            observations.publish(message)
            event.wait(1.0)
            if t0 not in arrived:
                lost += 1
            elif i >= 5:
                seconds.append(arrived[t0] - begin)
            time.sleep(0.02)
    finally:
        process.terminate()
        process.wait(15)
        rclpy.shutdown()
        spinner.join(5)
    return {**spread(seconds, 1e3), "lost": lost}


def main() -> int:
    """Measure and print."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    parser.add_argument("--no-node", action="store_true", help="leave the ROS part out")
    options = parser.parse_args()
    if options.peer:
        peer(options.peer)
        return 0
    rng = np.random.default_rng(options.seed)
    n = 60 if options.quick else 400
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        robot = droid_contract(Path(folder))
        contract = load_contract(robot)
        bare = HoldPolicy()
        bare.configure(contract)
        rows["bare call"] = measure(bare.infer, contract, rng, n, 1)
        for name in ("wam_serve", "roboarena"):
            for frames in (1, 4):
                label = f"{name} {frames} frame{'s' if frames > 1 else ''}"
                rows[label] = protocol(name, robot, n, rng, frames)
        for name in ("openpi", "lingbot_va", "gr00t"):
            rows[f"{name} 1 frame"] = protocol(name, robot, n, rng, 1)
        if not options.no_node:
            rows["node"] = node(robot, n, rng)
    print(f"{'':24}{'p50':>8}{'p95':>8}{'p99':>8}{'max':>8}  ms")
    for label, r in rows.items():
        goal = f"   goal p50 <= {GOALS[label]:g}" if label in GOALS else ""
        lost = f"   lost {r['lost']}" if r.get("lost") else ""
        print(f"{label:24}{r['p50']:8.2f}{r['p95']:8.2f}{r['p99']:8.2f}{r['max']:8.2f}{goal}{lost}")
    finish(options, {"milliseconds": rows, "goals": GOALS, "calls": n})
    return 0


if __name__ == "__main__":
    sys.exit(main())
