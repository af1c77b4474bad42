"""The executor on a simulated clock: /clock comes in steps, and on a busy machine late."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

node_module = pytest.importorskip("wam_ros.nodes.executor_node", reason="needs ROS 2")

PERIOD = 0.002


def walked(*clock: float) -> list[list[float]]:
    """The times the core ticked at, per reading of the clock."""
    ticked: list[list[float]] = []
    sent: list[range] = []
    node = SimpleNamespace(
        _sim_tick=0.0,
        _sim_count=0,
        _period=PERIOD,
        _read=lambda tick, now: None,
        _send=lambda command, now, ticks: sent.append(ticks),
        _core=SimpleNamespace(tick=lambda now: ticked[-1].append(now)),
    )
    for now in clock:
        ticked.append([])
        node._ros = lambda now=now: now
        node_module.ExecutorNode._simulated_tick(node, 0)
        assert node._sim_tick == pytest.approx(now, abs=PERIOD)
        assert len(sent[-1]) == len(ticked[-1]) and sent[-1].stop == round(now / PERIOD)
    return ticked


def test_a_step_of_the_clock_is_walked_period_by_period() -> None:
    first, second = walked(0.01, 0.02)
    assert first == pytest.approx([0.002, 0.004, 0.006, 0.008, 0.010])
    assert second == pytest.approx([0.012, 0.014, 0.016, 0.018, 0.020])


def test_a_clock_that_was_late_is_not_walked_in_one_go() -> None:
    """The arm has heard nothing for 0.4 s: the reference must not be 0.4 s ahead when it does."""
    first, late, after = walked(0.01, 0.41, 0.42)
    assert len(first) == 5 and len(after) == 5
    assert len(late) == 25 and late == pytest.approx([0.41 - PERIOD * k for k in range(24, -1, -1)])
