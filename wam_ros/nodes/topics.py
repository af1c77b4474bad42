"""Which topics of our own a recording holds, beside those the contract names."""

from __future__ import annotations

from diagnostic_msgs.msg import DiagnosticArray
from std_msgs.msg import String

from wam_ros.msg import ActionChunk, ExecutorState, PolicyState, SimState
from wam_ros.nodes.types import TypeMissing, message_type

OWN = (
    ("action_chunk", "wam_ros/msg/ActionChunk", ActionChunk),
    ("executor_state", "wam_ros/msg/ExecutorState", ExecutorState),
    ("policy_state", "wam_ros/msg/PolicyState", PolicyState),
    ("sim/state", "wam_ros/msg/SimState", SimState),
    ("instruction", "std_msgs/msg/String", String),
    ("/diagnostics", "diagnostic_msgs/msg/DiagnosticArray", DiagnosticArray),
)


def recorded_kind(kind: str) -> str:
    """Type under which a simulated robot's topic is recorded: JointState for what is missing."""
    try:
        message_type(kind)
    except TypeMissing:
        return "sensor_msgs/msg/JointState"
    return kind
