"""Record the chunks of a running graph into an .npz that `motion_quality.py --recorded` reads.

Start it in the graph's ROS domain, beside `wam launch` or `wam demo`; it ends after ``--seconds``.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import rclpy
from rclpy.qos import QoSProfile
from wam_ros.msg import ActionChunk

from wam_ros.nodes.convert import chunk_from_msg


def main() -> None:
    """Listen, then write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--topic", default="/wam/action_chunk")
    options = parser.parse_args()
    rclpy.init()
    node = rclpy.create_node("chunk_recorder")
    found = []
    node.create_subscription(
        ActionChunk,
        options.topic,
        lambda m: found.append((time.time(), m.header.frame_id, chunk_from_msg(m))),
        QoSProfile(depth=10),
    )
    end = time.monotonic() + options.seconds
    while time.monotonic() < end:
        rclpy.spin_once(node, timeout_sec=0.1)
    if not found:
        raise SystemExit(f"nothing on {options.topic}; is this the graph's ROS_DOMAIN_ID?")
    robot, first = found[0][1:]
    start = min(c.t0 for _, _, c in found)
    np.savez_compressed(
        options.file,
        robot=robot,
        names=first.names,
        step_period=first.step_period,
        cadence=[c.cadence for _, _, c in found],
        arrival=[t - start for t, _, _ in found],
        t0=[c.t0 - start for _, _, c in found],
        actions=np.array([c.actions for _, _, c in found], dtype=np.float32),
    )
    print(f"{len(found)} chunks in {options.file}")
    rclpy.try_shutdown()


if __name__ == "__main__":
    main()
