"""What zstd does to a bag of raw pictures: size, and the recorder's CPU time per second recorded.

Three pictures 640x480 at 30 Hz, as recorded; how well they compress depends on their noise, so it
is done for a clean rendering and for sensor noise of two strengths (standard deviation in levels).
"""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import arguments, finish

RATE, CAMERAS, SIZE = 30, 3, (480, 640)
CASES = {"rendered": 0.0, "noise 1.5": 1.5, "noise 4": 4.0}


def pictures(noise: float, seed: int, count: int = 12) -> list[bytes]:
    """Serialized images: walls and blocks with soft edges that move, plus noise."""
    from rclpy.serialization import serialize_message

    from wam_ros.nodes.convert import image_msg, to_stamp

    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : SIZE[0], 0 : SIZE[1]]
    found = []
    for k in range(count):
        base = np.stack([90 + 0.1 * x, 110 + 0.05 * y, 130 - 0.08 * x], axis=-1)
        for i, colour in enumerate(((200, 40, 30), (30, 160, 60), (40, 60, 200))):
            inside = (abs(x - 120 - 180 * i - 4 * k) < 50) & (abs(y - 200 - 30 * i) < 60)
            base[inside] = colour
        base += noise * rng.standard_normal(base.shape)
        image = image_msg(base.clip(0, 255).astype(np.uint8), to_stamp(k / RATE), "camera")
        found.append(bytes(serialize_message(image)))
    return found


def write(folder: Path, compression: str, data: list[bytes], seconds: float) -> dict[str, float]:
    """Write a bag; megabytes and CPU seconds per second recorded."""
    from wam_ros.recording.bag import BagWriter
    from wam_ros.recording.episode import Episode
    from wam_ros.recording.metadata import Topic

    bag = BagWriter(folder, Episode("none", ""), compression)
    names = [f"/camera/{i}" for i in range(CAMERAS)]
    for name in names:
        bag.add_topic(Topic(name, "sensor_msgs/msg/Image"))
    begin = time.process_time()
    for k in range(round(seconds * RATE)):
        for i, name in enumerate(names):
            bag.write(name, data[(k + 5 * i) % len(data)], round(k / RATE * 1e9) + 1, 1, k)
    bag.close("success")
    cpu = time.process_time() - begin
    size = sum(f.stat().st_size for f in folder.glob("*.mcap")) / 1e6
    return {"mb_per_s": round(size / seconds, 1), "cpu": round(cpu / seconds, 3)}


def main() -> None:
    """Every kind of picture, with and without."""
    options = arguments(__doc__ or "").parse_args()
    seconds = 3.0 if options.quick else 10.0
    result: dict[str, Any] = {}
    for case, noise in CASES.items():
        data = pictures(noise, options.seed)
        for compression in ("none", "zstd"):
            folder = Path(tempfile.mkdtemp(prefix="wam_bench_"))
            try:
                found = write(folder / "bag", compression, data, seconds)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
            result[f"{case}, {compression}"] = found
            print(
                f"  {case:10s} {compression:5s} {found['mb_per_s']:6.1f} MB/s, "
                f"{100 * found['cpu']:5.1f} % of a core"
            )
    finish(options, result)


if __name__ == "__main__":
    main()
