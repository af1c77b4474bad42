"""`wam doctor`: what it finds on this machine and in a running graph."""

from __future__ import annotations

import json

import pytest

from wam_ros import doctor
from wam_ros.cli import main


def test_it_reports_in_words_and_json(domain_id, tmp_path, capsys) -> None:
    main(["doctor", "--json", str(tmp_path / "d.json")])
    said = capsys.readouterr().out
    findings = json.loads((tmp_path / "d.json").read_text())
    assert {"what", "level", "detail", "fix"} == set(findings[0])
    assert all(f["what"] in said for f in findings)
    assert f"none answers under /wam on ROS_DOMAIN_ID {domain_id}" in said


def test_a_missing_module_comes_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    has = doctor._has
    monkeypatch.setattr(doctor, "_has", lambda name: name != "mujoco" and has(name))
    found = {f.what: f for f in doctor.examine()}
    assert found["MuJoCo"].level == "missing"
    assert "pip install" in found["MuJoCo"].fix
    assert "1 missing" in doctor.report([found["MuJoCo"]])


def test_lost_frames_name_the_line_for_the_drivers_shell() -> None:
    text = "40 % of the frames of 'left' are lost on the way: start its driver with `export A=b`"
    (finding,) = doctor.graph_findings("wam", {"perception": (1, text)})
    assert finding.level == "note"
    assert finding.fix == "in the camera driver's shell: export A=b"


def test_a_fault_of_the_graph_counts_and_no_ros_says_nothing() -> None:
    (finding,) = doctor.graph_findings("wam", {"policy": (2, "error: out of memory")})
    assert finding.level == "fault"
    assert doctor.report([finding]).endswith("1 fault: see above")
    assert doctor.graph_findings("wam", None) == []
