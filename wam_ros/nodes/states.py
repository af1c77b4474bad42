"""State messages that the nodes and a recorded rollout fill alike."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import Any

from sensor_msgs.msg import JointState

from wam_ros.contract.model import StateSource
from wam_ros.execution import Executor, Mode
from wam_ros.msg import ExecutorState
from wam_ros.nodes.convert import to_stamp


def executor_state(core: Executor, now: float) -> Any:
    """ExecutorState of a core at ``now``; what concerns the loop's own timing stays zero."""
    counters = core.counters
    sequence, row, margin = core.progress(now)
    msg = ExecutorState(
        mode=int(core.mode),
        mode_name=core.mode.name.lower(),
        armed=core.mode not in (Mode.DISARMED, Mode.ESTOPPED),
        reason=core.reason,
        chunk_sequence=sequence,
        row_progress=row,
        buffer_margin=margin,
        ticks=counters.ticks,
        chunks_accepted=counters.accepted,
        chunks_rejected=counters.rejected,
        limiter_ticks=counters.limiter_ticks,
        seam_jump_max=counters.seam_jump_max,
        following_error=counters.following_error,
        joint_names=list(core.names),
        reference=array("d", core.reference),
        delay_rows=counters.delay_rows,
        pace=core.pace,
    )
    p50, p95 = counters.latency.percentiles(50, 95)
    msg.observation_to_command_p50, msg.observation_to_command_p95 = p50, p95
    msg.header.stamp = to_stamp(now)
    return msg


def simulated_joints(source: StateSource, positions: Mapping[str, float], stamp: Any) -> JointState:
    """What a simulation sends for a joint source: JointState in the driver's raw units."""
    raw = [(positions[j] - source.offset) / source.scale for j in source.joints]
    msg = JointState(name=list(source.joints), position=array("d", raw))
    msg.header.stamp = stamp
    return msg
