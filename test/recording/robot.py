"""A pair of YAM arms that exists on topics only, for tests with real nodes."""

from __future__ import annotations

import threading
import time
from array import array
from collections.abc import Callable
from typing import Any

import numpy as np

from wam_ros.contract import load_contract

YAM = load_contract("yam")


class Robot:
    """Publishes cameras at 30 Hz and joints at 100 Hz from a thread; the pictures are noise.

    Entering spins a node of its own; ``calls`` answers services, ``heard`` keeps observations.
    """

    def __init__(self) -> None:
        import rclpy
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.qos import qos_profile_sensor_data as qos
        from sensor_msgs.msg import Image, JointState
        from wam_ros.msg import Observation

        self._rclpy = rclpy
        rclpy.init()
        self.node = rclpy.create_node("robot")
        self._spin = SingleThreadedExecutor()
        self._spin.add_node(self.node)
        self._images = [(c, self.node.create_publisher(Image, c.topic, qos)) for c in YAM.cameras]
        self._joints = [
            (s, self.node.create_publisher(JointState, s.topic, qos)) for s in YAM.sources
        ]
        self._type = JointState
        self.heard: list[Any] = []
        self.node.create_subscription(Observation, "/wam/observation", self.heard.append, qos)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._publish, daemon=True)
        self._rng = np.random.default_rng(0)

    def __enter__(self) -> Robot:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.node.destroy_node()
        self._rclpy.try_shutdown()

    def _publish(self) -> None:
        from wam_ros.nodes.convert import image_msg

        deadline, tick = time.monotonic(), 0
        while not self._stop.is_set():
            now = self.node.get_clock().now()
            stamp = now.to_msg()
            phase = now.nanoseconds * 1e-9 % 100.0
            for source, publisher in self._joints:
                values = [0.3 + 0.1 * np.sin(phase + i) for i in range(len(source.joints))]
                message = self._type(name=list(source.joints), position=array("d", values))
                message.header.stamp = stamp
                publisher.publish(message)
            if tick % 3 == 0:
                for camera, publisher in self._images:
                    picture = self._rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
                    publisher.publish(image_msg(picture, stamp, camera.name))
            tick += 1
            deadline += 0.01
            time.sleep(max(0.0, deadline - time.monotonic()))

    def until(self, done: Callable[[], bool], seconds: float = 30.0) -> bool:
        """Process messages until ``done()``; False when that takes too long."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._spin.spin_once(timeout_sec=0.05)
            if done():
                return True
        return False

    def run(self, seconds: float) -> None:
        """Process messages for a while."""
        self.until(lambda: False, seconds)

    def call(self, kind: Any, name: str, request: Any) -> Any:
        """Call a service and return its answer."""
        # A server that was killed looks alive until its lease ends; a call to it goes nowhere.
        for _ in range(4):
            client = self.node.create_client(kind, name)
            assert self.until(client.service_is_ready), f"{name} does not appear"
            future = client.call_async(request)
            answered = self.until(future.done, 10.0)
            self.node.destroy_client(client)
            if answered:
                return future.result()
        raise AssertionError(f"{name} does not answer")
