"""`wam demo` as a newcomer runs it: every node, the model that comes with the package."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs PyTorch: make model")
def test_the_model_that_ships_drives_the_demo_and_obeys_when_told_otherwise(
    domain_id: int, tmp_path: Path
) -> None:
    pytest.importorskip("wam_ros.nodes.client", reason="needs ROS 2 and the messages")
    file, then = tmp_path / "demo.json", "touch the green block with the right hand"
    line = [sys.executable, "-m", "wam_ros.cli", "demo", "--then", then, "--deadline", "40"]
    line += ["--out", str(tmp_path / "out"), "--json", str(file)]
    done = subprocess.run(
        line,
        env={**os.environ, "WAM_DEMO_DOMAIN": str(domain_id)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert file.is_file(), done.stdout + done.stderr
    summary = json.loads(file.read_text())
    told = json.dumps(summary, indent=1)
    assert summary["policy"] == "wam" and summary["policy_kind"] == "World-Action Model", told
    assert summary["requested_cadence"] == "sliding" and summary["chunks_accepted"] >= 5, told
    # The hand that was named last is at the block that was named last, if not always within 3 cm.
    assert summary["then"] == then and summary["final_distance_m"] < 0.06, told
    assert (done.returncode == 0) == summary["success"]
    assert summary["restarts"] == 0, told
    assert "imagined.png" in summary["pictures"]
    for picture in summary["pictures"]:
        assert (tmp_path / "out" / picture).stat().st_size > 10_000, picture
