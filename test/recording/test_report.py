"""The quality report: its figures, its flags, and the page in a real browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from synthetic import START, Scene

from wam_ros.cli import main

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")

# Written into a copy of the page: what a person would see, as text in the title.
PROBE = """<script>window.onload = () => { const d = document; const r = {
  width: d.documentElement.scrollWidth, view: innerWidth,
  images: [...d.images].every(i => i.complete && i.naturalWidth > 0), count: d.images.length,
  lines: d.querySelectorAll('polyline').length,
  rows: d.querySelectorAll('#episodes tbody tr').length,
  flags: [...d.querySelectorAll('.flag b')].map(b => b.textContent),
  broken: [...d.querySelectorAll('a')].filter(a => !d.querySelector(a.getAttribute('href'))).length,
  hidden: [...d.querySelectorAll('section')].filter(s => s.offsetHeight < 50).length,
  spill: [...d.querySelectorAll('section *')].filter(e => !e.closest('.scroll, svg, details') &&
    e.getBoundingClientRect().right > innerWidth + 1).length };
  d.title = JSON.stringify(r); };</script>"""


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    scenes = {
        "good": Scene(seconds=2.0),
        "still_and_gaps": Scene(
            seconds=4.0,
            keep=lambda n, t: n != "top" or not 2.0 < t < 2.2,
            instruction="fold the <b>towel</b> & more",
        ),
        "no_camera": Scene(seconds=1.5, keep=lambda n, t: n != "left", verdict="failure"),
        "jump": Scene(seconds=2.0, shift=lambda n, t: 2.0 if n == "arms" and t > 1 else 0.0),
    }
    for name, scene in scenes.items():
        scene.write(folder / "bags" / name)
    main(["dataset", str(folder / "bags"), "--out", str(folder / "out"), "--jobs", "1"])
    return folder / "out"


def test_figures(made: Path) -> None:
    report = json.loads((made / "report.json").read_text())
    episodes = {e["bag"]: e for e in report["episodes"]}
    assert report["total"]["accepted"] == 2 and report["total"]["refused"] == 2
    good = episodes["good"]["figures"]
    assert good["sources"]["top"]["rate_hz"] == pytest.approx(30, abs=0.1)
    assert good["sources"]["arms"]["rate_hz"] == pytest.approx(100, abs=0.5)
    # The scene's commands run 50 ms ahead; rows are 33 ms apart.
    assert good["command_lag_ms"] == pytest.approx(50, abs=17)
    assert good["idle_share"] == 0.0 and good["spikes"] == [] and good["flags"] == []
    (flag,) = episodes["still_and_gaps"]["figures"]["flags"]
    assert "gap" in flag["what"] and "no usable sample from top" in flag["why"] and flag["todo"]
    assert "clock of 'arms' jumped by +2.00 s" in " ".join(episodes["jump"]["refused"])


def test_spikes_idleness_and_limits_are_found(tmp_path: Path) -> None:
    """One command out of line, joints that stand still, and one beyond its limit."""
    import numpy as np

    from wam_ros.contract import load_contract
    from wam_ros.recording.quality import measure
    from wam_ros.recording.reader import BagReader
    from wam_ros.recording.rows import build_rows
    from wam_ros.recording.series import read_recording

    contract = load_contract("yam")
    bag = BagReader(Scene(seconds=2.0).write(tmp_path / "bag"))
    recording = read_recording(bag, contract)
    rows = build_rows(recording, "x")
    rows.state[:] = rows.state[0]
    rows.state[:, 1] = contract.joints["left_joint2"].limits.upper + 0.5
    rows.action[:] = rows.state
    rows.action[30, 2] += 1.0
    figures = measure(contract, recording, rows)
    period = contract.rates.step_period
    assert figures["idle_share"] == 1.0
    assert [(s["joint"], s["at_s"]) for s in figures["spikes"]] == [
        ("left_joint3", round(30 * period, 2)), ("left_joint3", round(31 * period, 2)),
    ]  # fmt: skip
    assert figures["command_lag_ms"] is not None or np.ptp(rows.action) > 0
    what = " ".join(f["what"] for f in figures["flags"])
    assert "idle for 100%" in what and "2 action spikes" in what
    assert "left_joint2 leaves its limits" in what
    assert rows.t[0] > START


def test_a_large_data_set_has_a_page_that_can_be_opened(made: Path) -> None:
    """2,800 episodes made 420 MB; refused and flagged ones are shown before a sample of others."""
    from wam_ros.recording.report import chosen, page
    from wam_ros.recording.rules import Limits

    good, bad, flagged = ({"refused": r, "figures": {"flags": f}} for r, f in (
        ([], []), (["no camera"], []), ([], ["idle"])
    ))  # fmt: skip
    many = [good] * 300 + [bad] * 20 + [good] * 100 + [flagged] * 30
    assert chosen(many[:5]) == set(range(5))
    shown = chosen(many)
    assert len(shown) == 100 and {*range(300, 320), *range(420, 450)} < shown
    rest = [i for i, s in enumerate(many) if s is good]
    assert [k for k, i in enumerate(rest) if i in shown] == list(range(0, 400, 8))
    assert chosen([bad] * 450, 100) == {k * 450 // 100 for k in range(100)}
    episodes = json.loads((made / "report.json").read_text())["episodes"]
    summaries = [e | {"excluded": e.get("excluded", [])} for e in episodes] * 40
    text = page(summaries, "many", Limits())
    assert text.count('<section id="e') == 100 and text.count('href="#e') == 100
    assert "of 100 of 160 recordings" in text and text.count('<tr><td class="wide">') == 160


def test_the_page_needs_nothing_else_and_escapes(made: Path) -> None:
    text = (made / "report.html").read_text()
    assert not re.search(r'(src|href)="(?!data:|#)', text)
    assert "<b>towel</b>" not in text and "&lt;b&gt;towel&lt;/b&gt; &amp; more" in text


@pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium")
@pytest.mark.parametrize("width", [1280, 420])
def test_the_page_in_a_browser(made: Path, tmp_path: Path, width: int) -> None:
    page = tmp_path / "page.html"
    page.write_text((made / "report.html").read_text().replace("</head>", f"{PROBE}</head>"))
    found = subprocess.run(
        [
            str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
            "--no-first-run", "--disable-background-networking", "--disable-component-update",
            "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}",
            f"--window-size={width},1000", "--virtual-time-budget=4000", "--dump-dom",
            page.as_uri(),
        ],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    title = re.search(r"<title>(\{.*?\})</title>", found.stdout, re.S)
    assert title, found.stderr[-2000:]
    seen = json.loads(
        title.group(1).replace("&gt;", ">").replace("&lt;", "<").replace("&amp;", "&")
    )
    assert seen["width"] <= seen["view"] + 1, "the page must not scroll sideways"
    assert seen["spill"] == 0
    assert seen["images"] and seen["count"] >= 18
    assert seen["rows"] == 4 and seen["lines"] >= 2 * 14 * 2
    assert seen["broken"] == 0 and seen["hidden"] == 0
    assert any("no usable sample from left in the whole" in f for f in seen["flags"])
    assert any("gap" in f for f in seen["flags"])
