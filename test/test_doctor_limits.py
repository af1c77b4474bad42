"""`wam doctor` tells an ordinary user what SCHED_FIFO needs."""

from __future__ import annotations

import os
import resource

import pytest

from wam_ros import doctor


@pytest.mark.parametrize(
    ("uid", "most", "level"),
    [(0, 0, "ok"), (1000, 98, "ok"), (1000, resource.RLIM_INFINITY, "ok"), (1000, 0, "note")],
)
def test_limits_file_is_printed_where_it_is_needed(monkeypatch, uid: int, most: int, level: str):
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (0, most))
    found = doctor._real_time()
    assert found.level == level
    assert ("/etc/security/limits.d/" in found.fix) == (level == "note")
    if found.fix:
        assert "rtprio 98" in found.fix and "memlock unlimited" in found.fix
