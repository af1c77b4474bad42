"""Lateness of the executor's control loop beside a bare absolute-sleep loop in the same run.

Three processes run at once: a bare loop that only sleeps to absolute deadlines; the real executor
node (20 joints of the G1, all its topics over real DDS, commands published); and a feeder that
publishes joint states at 100 Hz and a chunk every 143 ms. Loads: none, one core busy, both cores
busy, and chunks at 1 kHz. Under SCHED_FIFO both loops get the same priority.

Afterwards, under the same load, a third loop does nothing but count for as long as the executor's
median tick takes. What it misses is the machine's doing: a virtual one may run ten times slower for
a tenth of a second, which a loop that only sleeps does not notice.
"""

from __future__ import annotations

import argparse
import multiprocessing as mp
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import arguments, finish, spread

PRIORITY = 50
LOOPS = ("bare", "executor", "counting")


def count(rounds: int) -> None:
    """Keep the interpreter busy."""
    for _ in range(rounds):
        pass


def rounds_in(seconds: float) -> int:
    """How far `count` gets in that time when nothing is in its way."""
    best = np.inf
    for _ in range(200):
        begin = time.perf_counter()
        count(1000)
        best = min(best, time.perf_counter() - begin)
    return int(1000 * seconds / best)


def bare_loop(
    rate: float, seconds: float, fifo: bool, queue: Any, name: str = "bare", work: float = 0.0
) -> None:
    """The loop with nothing in it, or ``work`` seconds of counting, by the executor's own code."""
    from wam_ros.execution.metrics import Window
    from wam_ros.nodes.control_loop import ControlLoop

    rounds = rounds_in(work)
    loop = ControlLoop(lambda *_: count(rounds), 1.0 / rate, PRIORITY if fifo else 0)
    loop.lateness = Window(int(rate * seconds * 2))
    used = time.process_time()
    loop.start()
    time.sleep(seconds)
    loop.end()
    share = (time.process_time() - used) / seconds
    queue.put((name, loop.lateness.values(), loop.missed, share, loop.problem))


def executor_loop(rate: float, seconds: float, fifo: bool, queue: Any) -> None:
    """The executor node as it runs on a robot, in simulation mode so that it arms itself."""
    import rclpy
    from rclpy.executors import SingleThreadedExecutor

    from wam_ros import dds
    from wam_ros.execution.metrics import Window
    from wam_ros.nodes.executor_node import ExecutorNode

    sys.setswitchinterval(0.00002)
    dds.leave_shared_memory()
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as contract:
        contract.write(_contract_text(rate))
        contract.flush()
        given = [f"robot:={contract.name}", "sim:=true", "armed:=true"]
        given.append(f"rt_priority:={PRIORITY if fifo else 0}")
        rclpy.init(args=["--ros-args", *(x for g in given for x in ("-p", g))])
        node = ExecutorNode()
    ros = SingleThreadedExecutor()
    ros.add_node(node)
    end = time.monotonic() + 60.0
    while not node._core.counters.accepted and time.monotonic() < end:
        _spin(ros, 0.2)  # discovery, activation and arming do not count
    _spin(ros, 1.0)
    queue.put(("ready",))
    loop = node._loop
    missed, used = loop.missed, time.process_time()
    loop.lateness = Window(int(rate * seconds * 2))
    loop.spent = Window(int(rate * seconds * 2))
    _spin(ros, seconds)
    share = (time.process_time() - used) / seconds
    late, work = loop.lateness.values(), loop.spent.values()
    queue.put(("executor", late, loop.missed - missed, share, loop.problem))
    counters = node._core.counters
    queue.put(("work", work, counters.accepted, node._core.mode.name, node._core.reason))
    node.shut_down()
    rclpy.try_shutdown()


def _spin(ros: Any, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        ros.spin_once(timeout_sec=max(0.0, end - time.monotonic()))


def _contract_text(rate: float) -> str:
    from wam_ros.resources import share

    text = (share() / "config" / "robots" / "agibot_g1.yaml").read_text()
    text = text.replace("urdf: urdf/", f"urdf: {share()}/urdf/")
    return text.replace("control: 500", f"control: {rate:.0f}")


def feeder(seconds: float, chunk_rate: float, seed: int, queue: Any) -> None:
    """Publish what a robot and a policy would; joint states say that the arm follows well.

    It rests until the executor is armed, which an arm that moves would not be.
    """
    import rclpy
    from rclpy.qos import QoSProfile, qos_profile_sensor_data
    from sensor_msgs.msg import JointState
    from wam_ros.msg import ActionChunk as ActionChunkMsg
    from wam_ros.msg import ExecutorState

    from wam_ros.contract import load_contract
    from wam_ros.contract.data import ActionChunk
    from wam_ros.nodes.convert import chunk_to_msg
    from wam_ros.nodes.executor_node import LATCHED

    contract = load_contract("agibot_g1")
    rclpy.init()
    os.nice(-5 if os.geteuid() == 0 else 0)  # a starved feeder would measure the feeder
    node = rclpy.create_node("feeder")
    sources = [
        (s, node.create_publisher(JointState, s.topic, qos_profile_sensor_data))
        for s in contract.sources
    ]
    chunks = node.create_publisher(ActionChunkMsg, "action_chunk", QoSProfile(depth=1))
    states: list[ExecutorState] = []
    told = node.create_subscription(ExecutorState, "executor_state", states.append, LATCHED)
    home = {n: j.home for n, j in contract.joints.items()}
    arm = np.array([contract.group_of(n).role == "arm" for n in contract.action_names])
    start = np.inf
    base = np.array([home[n] for n in contract.action_names])
    phase = np.random.default_rng(seed).uniform(0, 6.28, len(base))

    def at(t: np.ndarray) -> np.ndarray:
        if not np.isfinite(start):
            return np.tile(base, (len(t), 1))
        ease = np.clip(t - start - 1.0, 0, 1)[:, None] ** 2
        wave = np.sin(1.5 * (t - start)[:, None] + phase) - np.sin(phase)
        return np.asarray(base + np.where(arm, 0.1 * ease * wave, 0.0))

    end = time.monotonic() + seconds
    next_state = next_chunk = time.monotonic()
    sent = 0
    while (now := time.monotonic()) < end:
        if told is not None:
            rclpy.spin_once(node, timeout_sec=0.0)
            if states and states[-1].armed:
                node.destroy_subscription(told)
                told, start = None, time.time()
        if now >= next_state:
            values = dict(zip(contract.action_names, at(np.array([time.time()]))[0], strict=True))
            for source, publisher in sources:
                raw = [(values[j] - source.offset) / source.scale for j in source.joints]
                publisher.publish(JointState(name=list(source.joints), position=raw))
            next_state += 0.01
        if now >= next_chunk:
            t0 = time.time()
            rows = at(t0 + np.arange(24) / 30)
            sent += 1
            chunk = ActionChunk(
                t0,
                1 / 30,
                rows,
                contract.action_names,
                contract.action_kinds,
                sequence=sent,
                cadence="sliding",
            )
            chunks.publish(chunk_to_msg(chunk, "agibot_g1"))
            next_chunk += 1.0 / chunk_rate
        time.sleep(max(0.0, min(next_state, next_chunk) - time.monotonic()))
    queue.put(("sent", sent))
    rclpy.try_shutdown()


def busy(cpu: int) -> None:
    """Keep one core busy."""
    os.sched_setaffinity(0, {cpu})
    while True:
        sum(range(10_000))


def scenario(rate: float, load: str, fifo: bool, seconds: float, seed: int) -> dict[str, Any]:
    """Run one combination and return its figures."""
    context = mp.get_context("spawn")
    queue = context.Queue()
    cores = sorted(os.sched_getaffinity(0))
    noise = {"one core busy": cores[-1:], "both cores busy": cores[:2]}.get(load, [])
    loads = [context.Process(target=busy, args=(c,), daemon=True) for c in noise]
    per_second = 1000.0 if load == "chunk flood" else 7.0
    feed = context.Process(
        target=feeder, args=(2 * seconds + 90, per_second, seed, queue), daemon=True
    )
    measured = [
        context.Process(target=f, args=(rate, seconds, fifo, queue), daemon=True)
        for f in (bare_loop, executor_loop)
    ]
    feed.start()
    for process in (*loads, measured[1]):
        process.start()
    found: dict[str, Any] = {}
    while "ready" not in found:
        name, *rest = queue.get(timeout=90)
        found[name] = rest
    measured[0].start()
    while not {"bare", "executor", "work"} <= found.keys():
        name, *rest = queue.get(timeout=seconds + 60)
        found[name] = rest
    median = float(np.median(found["work"][0]))
    for process in measured:
        process.join(timeout=10)
    given = (rate, seconds, fifo, queue, "counting", median)
    measured.append(context.Process(target=bare_loop, args=given, daemon=True))
    measured[-1].start()
    name, *rest = queue.get(timeout=seconds + 60)
    while name != "counting":  # the feeder tells how many chunks it sent
        name, *rest = queue.get(timeout=seconds + 60)
    found[name] = rest
    for process in (*loads, feed, *measured):
        process.kill()
        process.join()
    result: dict[str, Any] = {"rate_hz": rate, "load": load, "policy": "FIFO" if fifo else "OTHER"}
    for name in LOOPS:
        late, missed, share, problem = found[name]
        if problem:
            raise RuntimeError(problem)
        row = {**spread(late, 1e6), "missed": missed, "cpu_share": round(share, 3)}
        result[name] = row
    work, accepted, mode, reason = found["work"]
    result["work_us"] = spread(work, 1e6)
    result["chunks_accepted"], result["mode"] = accepted, mode
    result["p99_ratio"] = round(result["executor"]["p99"] / result["bare"]["p99"], 2)
    if mode != "TRACKING":
        print(f"  (the executor ended {mode}: {reason})")
    return result


def show(result: dict[str, Any]) -> None:
    """Print one scenario, a line per loop."""
    print(f"{result['rate_hz']:.0f} Hz, {result['load']}, SCHED_{result['policy']}")
    for name in LOOPS:
        r = result[name]
        print(
            f"  {name:9s} p50 {r['p50']:7.0f}  p99 {r['p99']:7.0f}  p99.9 {r['p99.9']:7.0f}  "
            f"max {r['max']:7.0f} us   missed {r['missed']:4d} of {r['n'] + r['missed']}   "
            f"cpu {100 * r['cpu_share']:.0f} %"
        )
    w = result["work_us"]
    print(
        f"  work per tick p50 {w['p50']:.0f}, p99 {w['p99']:.0f} us; p99 of lateness is "
        f"{result['p99_ratio']} times the bare loop's; {result['chunks_accepted']} chunks taken"
    )


def main() -> None:
    """Run all combinations and print them."""
    parser: argparse.ArgumentParser = arguments(__doc__ or "")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--only", default="", help="part of a scenario's name, such as '500 Hz'")
    parser.add_argument("--as-user", type=int, metavar="UID", help="as root: become this user")
    options = parser.parse_args()
    if options.as_user:
        _become(options.as_user, options.json)
    from wam_ros.nodes.control_loop import may_fifo as allowed

    os.environ["ROS_DOMAIN_ID"] = str(60 + os.getpid() % 20)
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    loads = ("idle", "one core busy", "both cores busy", "chunk flood")
    may_fifo = allowed(PRIORITY)
    if not may_fifo:
        print("SCHED_FIFO is not allowed here (see `wam doctor`); only SCHED_OTHER is measured")
    plan = [
        (rate, load, fifo) for rate in (500.0, 1000.0) for fifo in (False, True) for load in loads
    ]
    if options.quick:
        plan = [(500.0, "idle", False), (500.0, "both cores busy", True)]
    seconds = 6.0 if options.quick else options.seconds
    results = []
    for rate, load, fifo in plan:
        name = f"{rate:.0f} Hz {load} {'FIFO' if fifo else 'OTHER'}"
        if options.only in name and (may_fifo or not fifo):
            results.append(scenario(rate, load, fifo, seconds, options.seed))
            show(results[-1])
    finish(options, {"user": os.geteuid(), "seconds": seconds, "scenarios": results})


def _become(user: int, json: Path | None) -> None:
    """Give root's rights away, for good; the result file is handed over first."""
    if os.geteuid() != 0:
        raise SystemExit("--as-user needs root, which it gives away")
    if json:
        json.touch()
        os.chown(json, user, user)
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)
    if not os.access(os.__file__, os.R_OK):
        raise SystemExit(
            f"user {user} may not read {os.__file__}: use a Python outside root's home"
        )
    os.environ["HOME"] = os.environ["ROS_HOME"] = tempfile.mkdtemp(prefix="loop_jitter_")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    main()
