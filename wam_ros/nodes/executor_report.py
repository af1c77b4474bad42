"""What the executor tells about itself: `executor_state` and `/diagnostics`."""

from __future__ import annotations

from typing import Any

from rclpy.node import Node

from wam_ros.execution import Executor, Mode
from wam_ros.nodes.control_loop import ControlLoop
from wam_ros.nodes.diagnostics import status
from wam_ros.nodes.states import executor_state

Timing = tuple[float, ...]
"""Lateness p50, p99, max and work p50, p99 of the loop, in seconds."""


def timing_of(loop: ControlLoop) -> Timing:
    """Percentiles of the recent past; sorts, so not for the loop itself."""
    return (*loop.lateness.percentiles(50, 99, 100), *loop.spent.percentiles(50, 99))


def state_message(core: Executor, loop: ControlLoop, timing: Timing, now: float) -> Any:
    """An ExecutorState; to be made between two ticks."""
    msg = executor_state(core, now)
    msg.missed_ticks = loop.missed
    msg.lateness_p50, msg.lateness_p99, msg.lateness_max = timing[:3]
    msg.work_p50, msg.work_p99 = timing[3:]
    return msg


def diagnostics(node: Node, core: Executor, loop: ControlLoop, timing: Timing, now: float) -> Any:
    """A DiagnosticArray."""
    counters = core.counters
    level = 2 if core.mode is Mode.ESTOPPED else int(core.mode is Mode.DISARMED)
    late, work = timing[:3], timing[3:]
    seen = counters.latency.percentiles(50, 95)
    values = {
        "lateness p50, p99, max (us)": ", ".join(f"{x * 1e6:.0f}" for x in late),
        "work per tick p50, p99 (us)": ", ".join(f"{x * 1e6:.0f}" for x in work),
        "missed ticks": str(loop.missed),
        "observation to command p50, p95 (ms)": ", ".join(f"{x * 1e3:.0f}" for x in seen),
        "buffer margin (s)": f"{core.progress(now)[2]:.2f}",
        "chunks accepted, rejected": f"{counters.accepted}, {counters.rejected}",
        "ticks limited": str(counters.limiter_ticks),
        "largest seam jump (rad)": f"{counters.seam_jump_max:.1e}",
        "following error (rad)": f"{counters.following_error:.3f}",
        "real-time priority": loop.problem or ("ordinary" if not loop.fifo else "SCHED_FIFO"),
    }
    text = f"{core.mode.name.lower()}: {core.reason}" if core.reason else core.mode.name.lower()
    return status(node, "executor", level, text, values)
