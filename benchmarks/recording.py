"""Record three 640x480 raw cameras at 30 Hz and 500 Hz joint states: loss, CPU, MB/s, lateness.

The executor runs beside it, with and without the recorder; the difference in the lateness of its
500 Hz loop is what recording costs control. Every process is a real node over DDS. With --load N,
N processes that do nothing but compute compete for the cores all the while.
"""

from __future__ import annotations

import multiprocessing as mp
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import arguments, finish

ROBOT, CAMERA_RATE, STATE_RATE, GRIPPER_RATE = "yam", 30.0, 500.0, 50.0


def listening(node: Any, topic: str) -> set[str]:
    """Names of the nodes that subscribe to a topic."""
    return {e.node_name for e in node.get_subscriptions_info_by_topic(topic)}


def publish(
    kind: str, domain: int, seconds: float, seed: int, listeners: set[str], queue: Any
) -> None:
    """Publish cameras or joint states for ``seconds``, once all listen; report the counts."""
    os.environ.update(environment(domain))
    from wam_ros import dds

    dds.use_profile()
    import numpy as np
    import rclpy
    from rclpy.qos import qos_profile_sensor_data as qos
    from sensor_msgs.msg import Image, JointState

    from wam_ros.contract import load_contract
    from wam_ros.nodes.convert import image_msg

    contract = load_contract(ROBOT)
    rclpy.init()
    node = rclpy.create_node(f"bench_{kind}")
    rng = np.random.default_rng(seed)
    if kind == "cameras":
        topics = [c.topic for c in contract.cameras]
        pictures = [rng.integers(0, 256, (480, 640, 3), dtype=np.uint8) for _ in topics]
        rates = [CAMERA_RATE] * len(topics)
        outs = [node.create_publisher(Image, t, qos) for t in topics]

        def make(i: int, stamp: Any) -> Any:
            return image_msg(pictures[i], stamp, "camera")

    else:
        sources = contract.sources
        topics = [s.topic for s in sources]
        rates = [STATE_RATE if len(s.joints) > 1 else GRIPPER_RATE for s in sources]
        outs = [node.create_publisher(JointState, t, qos) for t in topics]

        def make(i: int, stamp: Any) -> Any:
            names = list(sources[i].joints)
            message = JointState(name=names, position=[0.5] * len(names))
            message.header.stamp = stamp
            return message

    while not all(listeners <= listening(node, t) for t in topics):
        time.sleep(0.05)
    time.sleep(1.0)
    sent = dict.fromkeys(topics, 0)
    fastest = max(rates)
    begin = time.monotonic()
    for k in range(round(seconds * fastest)):
        delay = begin + k / fastest - time.monotonic()
        if delay > 0:
            time.sleep(delay)
        for i, out in enumerate(outs):
            if k % round(fastest / rates[i]) == 0:
                out.publish(make(i, node.get_clock().now().to_msg()))
                sent[topics[i]] += 1
    queue.put((sent, time.monotonic() - begin))
    time.sleep(1.0)
    node.destroy_node()
    rclpy.shutdown()


def burn() -> None:
    """Keep a core busy until terminated."""
    while True:
        sum(range(100_000))


def environment(domain: int) -> dict[str, str]:
    """Variables that keep this run to itself."""
    return {"ROS_DOMAIN_ID": str(domain), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}


def node_process(module: str, domain: int, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a node of ours."""
    line = [sys.executable, "-m", module, "--ros-args", "-r", "__ns:=/wam", *arguments]
    return subprocess.Popen(line, env={**os.environ, **environment(domain)})


def cpu_seconds(pid: int) -> float:
    """User and system time a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def drive(
    domain: int, seconds: float, seed: int, record: Path | None, priority: int
) -> dict[str, Any]:
    """One run: executor, publishers, and the recorder when ``record`` is a folder."""
    os.environ.update(environment(domain))
    spawn = mp.get_context("spawn")
    queue = spawn.Queue()
    rank = f"rt_priority:={priority}"
    executor = node_process(
        "wam_ros.nodes.executor_node", domain, "-p", f"robot:={ROBOT}", "-p", rank
    )
    children = [executor]
    if record:
        recorder = node_process(
            "wam_ros.nodes.recorder_node", domain, "-p", f"robot:={ROBOT}", "-p", f"out:={record}"
        )
        children.append(recorder)
    else:  # somebody must take the pictures, or nothing is sent: perception does, in both runs
        recorder = None
    children.append(node_process("wam_ros.nodes.perception_node", domain, "-p", f"robot:={ROBOT}"))
    listeners = {"perception", "recorder"} if record else {"perception"}
    publishers = [
        spawn.Process(target=publish, args=(kind, domain, seconds, seed, listeners, queue))
        for kind in ("cameras", "states")
    ]
    try:
        return _measure(publishers, queue, recorder, seconds)
    finally:
        for child in children:
            child.send_signal(signal.SIGINT)
        for child in children:
            child.wait(timeout=20)


def _measure(
    publishers: list[Any], queue: Any, recorder: subprocess.Popen[bytes] | None, seconds: float
) -> dict[str, Any]:
    import rclpy
    from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
    from wam_ros.msg import ExecutorState

    from wam_ros.nodes.record_client import RecordClient

    client = RecordClient()
    states: list[Any] = []
    executor_up = time.monotonic() + 60
    latched = QoSProfile(
        depth=1,
        durability=DurabilityPolicy.TRANSIENT_LOCAL,
        reliability=ReliabilityPolicy.RELIABLE,
    )
    client._node.create_subscription(ExecutorState, "executor_state", states.append, latched)
    result: dict[str, Any] = {}
    while not states and time.monotonic() < executor_up:
        client.spin(0.5)
    if recorder:
        assert client.wait(60.0), "the recorder did not come up"
        done, text = client.start("benchmark")
        assert done, text
    for p in publishers:
        p.start()
    begun = cpu_seconds(recorder.pid) if recorder else 0.0
    start = time.monotonic()
    found = []
    while len(found) < 2 and time.monotonic() - start < seconds + 60:
        client.spin(0.5)
        while not queue.empty():
            found.append(queue.get())
    wall = time.monotonic() - start
    client.spin(0.5)
    if recorder:
        result["cpu_percent"] = round(100 * (cpu_seconds(recorder.pid) - begun) / wall, 1)
        result["overflow"] = int(client.status.get("overflow", "0"))
        done, text = client.stop("success")
        assert done, text
        result["bag"] = client.status.get("path", "")
    # The executor reports its lateness over the last ten seconds; the last report is the load's.
    last = states[-1]
    result["lateness_us"] = {
        "p50": round(last.lateness_p50 * 1e6),
        "p99": round(last.lateness_p99 * 1e6),
        "max": round(last.lateness_max * 1e6),
    }
    result["sent"] = {k: v for sent, _ in found for k, v in sent.items()}
    result["seconds"] = round(max(s for _, s in found), 2)
    client.close()
    for p in publishers:
        p.join()
    assert rclpy is not None
    return result


def holes(bag: Path) -> list[str]:
    """Gaps in the publishers' numbers: topic, seconds since the first message, how many."""
    from wam_ros.recording.reader import BagReader

    newest: dict[str, int] = {}
    found, first = [], 0
    for raw in BagReader(bag).messages():
        first = first or raw.log_ns
        missing = raw.sequence - newest.get(raw.topic, raw.sequence) - 1
        newest[raw.topic] = raw.sequence
        if missing > 0:
            found.append(f"{raw.topic} at {(raw.log_ns - first) * 1e-9:.2f} s: {missing}")
    return found


def recorded(bag: Path) -> tuple[dict[str, int], float]:
    """Messages per topic, and megabytes, of a bag."""
    from wam_ros.recording import metadata

    info = metadata.read(bag)
    counts = {
        t["topic_metadata"]["name"]: t["message_count"] for t in info["topics_with_message_count"]
    }
    return counts, sum(f.stat().st_size for f in bag.glob("*.mcap")) / 1e6


def one(
    label: str, domain: int, seconds: float, seed: int, out: Path | None, priority: int
) -> dict[str, Any]:
    """Run and print one case."""
    found = drive(domain, seconds, seed, out, priority)
    late = found["lateness_us"]
    text = f"  {label:18s} lateness p50 {late['p50']} p99 {late['p99']} max {late['max']} us"
    if out:
        counts, size = recorded(Path(found["bag"]))
        lost = {t: n - counts.get(t, 0) for t, n in found["sent"].items()}
        total = sum(found["sent"].values())
        found |= {"lost": lost, "lost_total": sum(lost.values()), "messages": total}
        found["mb_per_s"] = round(size / found["seconds"], 1)
        text += (
            f"; {found['lost_total']} of {total} messages lost, {found['mb_per_s']} MB/s, recorder "
            f"{found['cpu_percent']} % of a core"
        )
        if os.environ.get("HOLES"):
            print(holes(Path(found["bag"])))
        worst = {t: n for t, n in lost.items() if n}
        if worst:
            text += "; " + ", ".join(f"{t} {n} of {found['sent'][t]}" for t, n in worst.items())
    print(text, flush=True)
    return found


def main() -> None:
    """With and without the recorder, in turn, so that other load hits both alike."""
    parser = arguments(__doc__ or "")
    parser.add_argument(
        "--rt-priority", type=int, default=0, help="of the executor; 50 as on hardware, 0: ordinary"
    )
    parser.add_argument("--load", type=int, default=0, metavar="N", help="competing processes")
    options = parser.parse_args()
    seconds, rounds = (8.0, 1) if options.quick else (60.0, 2)
    busy = [mp.get_context("spawn").Process(target=burn, daemon=True) for _ in range(options.load)]
    folder = Path(tempfile.mkdtemp(prefix="wam_bench_", dir=os.environ.get("TMPDIR")))
    result: dict[str, Any] = {"seconds": seconds, "load": options.load, "runs": []}
    result["rt_priority"] = options.rt_priority
    print(
        f"3 cameras 640x480 rgb8 at 30 Hz, joints at 500 Hz, {seconds:.0f} s a run, "
        f"{options.load} competing processes"
    )
    for process in busy:
        process.start()
    try:
        for k in range(rounds):
            domain = 30 + (os.getpid() + 2 * k) % 60
            result["runs"].append(
                {
                    "without": one(
                        "without recorder", domain, seconds, options.seed, None, options.rt_priority
                    ),
                    "with": one(
                        "with recorder",
                        domain + 1,
                        seconds,
                        options.seed,
                        folder,
                        options.rt_priority,
                    ),
                }
            )
    finally:
        for process in busy:
            process.terminate()
        shutil.rmtree(folder, ignore_errors=True)
    finish(options, result)


if __name__ == "__main__":
    main()
