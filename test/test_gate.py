"""The gate passes or trips, and says which joint and by how much."""

from __future__ import annotations

import numpy as np
import pytest

from wam_ros.contract.model import Limits
from wam_ros.execution.gate import Gate

NAMES = ("a", "b")
LIMITS = [Limits(-1.0, 1.0, 2.0, 8.0, 400.0, 0.25)] * 2
DT = 0.002


def gate(start: float = 0.0) -> Gate:
    made = Gate(NAMES, LIMITS, DT)
    made.restart(np.full(2, start))
    return made


def test_a_motion_inside_the_limits_passes_unchanged() -> None:
    g = gate()
    for k in range(500):
        command = np.full(2, 0.2 * (1 - np.cos(2 * k * DT)))
        before = command.copy()
        assert g.check(command) == ""
        np.testing.assert_array_equal(command, before)


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (np.array([0.0, np.nan]), "command of b is not a number"),
        (np.array([0.0, np.inf]), "command of b is not a number"),
        (np.array([1.5, 0.0]), "of a leaves"),
        (np.array([0.0, 0.1]), "speed of b"),
        (np.array([0.001, 0.0]), "acceleration of a"),
        (np.array([0.00001, 0.0]), "jerk of a"),
    ],
)
def test_trips_name_joint_and_limit(command: np.ndarray, reason: str) -> None:
    assert reason in gate().check(command)


def test_nothing_passes_before_arming() -> None:
    assert "before arming" in Gate(NAMES, LIMITS, DT).check(np.zeros(2))


def test_a_joint_outside_its_range_may_move_inward_only() -> None:
    g = gate(1.1)
    assert g.check(np.full(2, 1.1 - 1e-9)) == ""
    assert "leaves" in gate(1.1).check(np.full(2, 1.1 + 3e-6))


def test_following_error_names_the_worst_joint() -> None:
    error, share, reason = gate().following_error(np.zeros(2), np.array([0.1, -0.3]))
    assert error == pytest.approx(0.3) and share > 1.0
    assert reason.startswith("b is 0.300 away")
    assert gate().following_error(np.zeros(2), np.array([0.1, -0.2]))[2] == ""
    # A joint that nobody has seen does not hide another.
    assert gate().following_error(np.zeros(2), np.array([np.nan, -0.3]))[2].startswith("b is")


def test_leaps_are_told_from_fast_motion() -> None:
    g = gate()
    assert g.leap(0, 0.04, 0.02) == ""
    assert g.leap(0, 2.0, 1.0) == ""  # a second without readings
    assert "reading of a jumped by 1.000 in 20 ms" in g.leap(0, -1.0, 0.02)
    assert g.leap(0, np.nan, np.inf) == ""
