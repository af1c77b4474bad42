"""Convert bags of three 640x480 raw cameras at 30 Hz: seconds per GB of bag, data rates, sizes."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import arguments, finish, spread

RATE, WIDTH, HEIGHT = 30.0, 640, 480


def write_bag(folder: Path, seconds: float, seed: int) -> int:
    """A YAM episode with moving, slightly noisy pictures; returns its size in bytes."""
    from rclpy.serialization import serialize_message
    from sensor_msgs.msg import JointState

    from wam_ros.contract import load_contract
    from wam_ros.nodes.convert import image_msg, to_stamp
    from wam_ros.recording.bag import BagWriter
    from wam_ros.recording.episode import Episode
    from wam_ros.recording.metadata import Topic

    contract = load_contract("yam")
    text = Path(contract.path).read_text(encoding="utf-8")
    bag = BagWriter(folder, Episode("yam", text, "fold the towel"))
    kind = "sensor_msgs/msg/JointState"
    for camera in contract.cameras:
        bag.add_topic(Topic(camera.topic, camera.type))
    for source in contract.sources:
        bag.add_topic(Topic(source.topic, kind))
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    noise = rng.integers(0, 8, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    start = 1_700_000_000.0
    for k in range(round(seconds * 100)):
        t = start + k / 100
        for source in contract.sources:
            values = [0.5 + 0.2 * np.sin(k / 60 + i) for i in range(len(source.joints))]
            message = JointState(name=list(source.joints), position=values)
            message.header.stamp = to_stamp(t)
            ns = round(t * 1e9)
            bag.write(source.topic, serialize_message(message), ns, ns, k)
        if k % 10 in (0, 3, 7):  # three of ten ticks: 30 Hz
            for i, camera in enumerate(contract.cameras):
                wave = 100 + 80 * np.sin((x + 3 * k) / 40 + i) * np.cos((y - 2 * k) / 55)
                picture = np.roll(noise, k, axis=1) + wave.astype(np.uint8)[..., None]
                ns = round(t * 1e9) + 1000
                data = serialize_message(image_msg(picture, to_stamp(t), camera.name))
                bag.write(camera.topic, data, ns, ns, k)
    bag.close("success")
    return sum(f.stat().st_size for f in folder.glob("*.mcap"))


def main() -> None:
    """Write the bags once; convert them as often as asked."""
    options = arguments(__doc__ or "").parse_args()
    bags, seconds, repeats = (2, 1.6, 1) if options.quick else (4, 3.2, 3)
    from wam_ros.recording.bags import find_bags
    from wam_ros.recording.convert import Options
    from wam_ros.recording.dataset import assemble, convert_all

    folder = Path(tempfile.mkdtemp(prefix="wam_bench_"))
    jobs = min(2, os.cpu_count() or 1)
    result: dict[str, Any] = {"jobs": jobs, "bags": bags}
    try:
        size = sum(
            write_bag(folder / "bags" / str(i), seconds, options.seed + i) for i in range(bags)
        )
        times = []
        for k in range(repeats):
            out = folder / f"out{k}"
            begin = time.perf_counter()
            summaries = convert_all(find_bags([folder / "bags"]), out, Options(), jobs)
            found = assemble(summaries, out)
            times.append(time.perf_counter() - begin)
            assert found["episodes"] == bags, [s["refused"] for s in summaries]
        videos = sum(f.stat().st_size for f in out.glob("videos/**/*.mp4"))
        per_gb = [t / (size / 1e9) for t in times]
        result |= {
            "raw_gb": round(size / 1e9, 3),
            "video_mb": round(videos / 1e6, 2),
            "rows": found["frames"],
            "seconds_per_gb": spread(per_gb),
        }
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(
        f"{result['raw_gb']} GB in {bags} bags, {jobs} processes: {min(per_gb):.1f} to "
        f"{max(per_gb):.1f} s per GB (median {np.median(per_gb):.1f}); {found['frames']} rows, "
        f"videos {result['video_mb']} MB"
    )
    finish(options, result)


if __name__ == "__main__":
    main()
