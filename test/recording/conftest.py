"""Recording needs the extra `record`; bags are made from real serialized messages."""

from __future__ import annotations

import pytest

for _name in ("mcap", "mcap_ros2", "pyarrow", "av"):
    pytest.importorskip(_name, reason="needs the extra `record`")
pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("wam_ros.nodes.convert", reason="needs the built messages")
