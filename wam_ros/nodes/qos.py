"""Qualities of service that several nodes share."""

from __future__ import annotations

from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

LATCHED = QoSProfile(
    depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL, reliability=ReliabilityPolicy.RELIABLE
)
"""A late subscriber gets the last message."""
RELIABLE = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
"""The newest message arrives; an older one that was not read gives way to it."""
