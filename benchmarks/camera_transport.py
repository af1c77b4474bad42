"""Three 640x480 cameras at 30 Hz over DDS, with our profile on publisher and/or subscriber.

Prints for each of the four cases the share of frames delivered and their age on arrival.
"""

from __future__ import annotations

import multiprocessing as mp
import os
import time
from typing import Any

from common import arguments, finish, spread

CAMERAS, RATE, WIDTH, HEIGHT = 3, 30.0, 640, 480


def prepare(profile: bool, domain: int) -> None:
    """Set what rclpy reads at its start; must run before the first import of it."""
    from wam_ros import dds

    os.environ["ROS_DOMAIN_ID"] = str(domain)
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    os.environ.pop(dds.VARIABLE, None)
    if profile:
        dds.use_profile()


def publish(profile: bool, domain: int, seconds: float, seed: int, queue: Any) -> None:
    """Three cameras in one process; waits for the subscriber first."""
    prepare(profile, domain)
    import numpy as np
    import rclpy
    from rclpy.qos import qos_profile_sensor_data
    from sensor_msgs.msg import Image

    from wam_ros.nodes.convert import image_msg

    rclpy.init()
    node = rclpy.create_node("cameras")
    outs = [
        node.create_publisher(Image, f"/cam{i}", qos_profile_sensor_data) for i in range(CAMERAS)
    ]
    picture = np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    while not all(p.get_subscription_count() for p in outs):
        time.sleep(0.05)
    time.sleep(0.5)
    deadline, sent = time.monotonic(), 0
    while sent < seconds * RATE:
        for p in outs:
            p.publish(image_msg(picture, node.get_clock().now().to_msg(), "cam"))
        sent += 1
        deadline += 1.0 / RATE
        time.sleep(max(0.0, deadline - time.monotonic()))
    queue.put(("sent", sent * CAMERAS))
    time.sleep(1.0)
    node.destroy_node()
    rclpy.shutdown()


def subscribe(profile: bool, domain: int, seconds: float, queue: Any) -> None:
    """Count frames and note their age."""
    prepare(profile, domain)
    import rclpy
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.qos import qos_profile_sensor_data
    from sensor_msgs.msg import Image

    from wam_ros.nodes.convert import to_seconds

    rclpy.init()
    node = rclpy.create_node("viewer")
    ages: list[float] = []

    def on_image(message: Any) -> None:
        ages.append(node.get_clock().now().nanoseconds * 1e-9 - to_seconds(message.header.stamp))

    for i in range(CAMERAS):
        node.create_subscription(Image, f"/cam{i}", on_image, qos_profile_sensor_data)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    end = time.monotonic() + seconds + 20.0
    last = time.monotonic()
    count = 0
    while time.monotonic() < end:
        executor.spin_once(timeout_sec=0.1)
        if len(ages) != count:
            count, last = len(ages), time.monotonic()
        if count and time.monotonic() - last > 2.0:
            break
    queue.put(("ages", ages))
    node.destroy_node()
    rclpy.shutdown()


def case(pub: bool, sub: bool, domain: int, seconds: float, seed: int) -> dict[str, Any]:
    """Run one case in two fresh processes."""
    spawn = mp.get_context("spawn")
    queue = spawn.Queue()
    children = [
        spawn.Process(target=subscribe, args=(sub, domain, seconds, queue)),
        spawn.Process(target=publish, args=(pub, domain, seconds, seed, queue)),
    ]
    for child in children:
        child.start()
    found = dict(queue.get(timeout=seconds + 60) for _ in children)
    for child in children:
        child.join()
    share = len(found["ages"]) / found["sent"]
    return {
        "sent": found["sent"],
        "delivered": round(share, 4),
        "age_ms": spread(found["ages"], 1e3),
    }


def main() -> None:
    """Run the four cases."""
    options = arguments(__doc__ or "").parse_args()
    seconds = 4.0 if options.quick else 10.0
    result: dict[str, Any] = {"seconds": seconds}
    print(f"{CAMERAS} cameras {WIDTH}x{HEIGHT} rgb8 at {RATE:.0f} Hz for {seconds:.0f} s")
    for i, (pub, sub) in enumerate([(False, False), (False, True), (True, False), (True, True)]):
        name = f"profile on publisher {'yes' if pub else 'no'}, subscriber {'yes' if sub else 'no'}"
        found = case(pub, sub, 30 + i + os.getpid() % 40, seconds, options.seed)
        result[name] = found
        age = found["age_ms"]
        print(
            f"  {name:42s} delivered {found['delivered'] * 100:5.1f} %   "
            f"age p50 {age.get('p50', 0.0):.1f} ms, p95 {age.get('p95', 0.0):.1f} ms"
        )
    finish(options, result)


if __name__ == "__main__":
    main()
