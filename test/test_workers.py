"""Processes for long work: why they cannot begin is told, and Ctrl-C ends them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_children import alive

from wam_ros.workers import worker_pool

STOPPED = """
import os, signal, sys, time
from pathlib import Path
from wam_ros.workers import worker_pool

def work(folder, number):
    (Path(folder) / f"{number}.{os.getpid()}").touch()
    time.sleep(2.0)

if __name__ == "__main__":
    # What a shell starts in the background ignores Ctrl-C, and all that is started from there.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with worker_pool(2) as pool:
            for done in [pool.submit(work, sys.argv[1], i) for i in range(50)]:
                done.result()
    except KeyboardInterrupt:
        print("stopped", flush=True)
"""


def refuse(why: str) -> None:
    raise ValueError(why)


def test_what_hinders_the_beginning_is_told_by_the_work() -> None:
    with (
        pytest.raises(RuntimeError, match="no such checkpoint"),
        worker_pool(2, refuse, ("no such checkpoint",)) as pool,
    ):
        pool.submit(os.getpid).result()


def test_work_is_done_side_by_side(tmp_path: Path) -> None:
    with worker_pool(2) as pool:
        seen = {f.result() for f in [pool.submit(_met, tmp_path) for _ in range(2)]}
    assert len(seen) == 2 and os.getpid() not in seen


def _met(folder: Path) -> int:
    """Own process id, once another process is at work in ``folder`` too."""
    (folder / str(os.getpid())).touch()
    end = time.monotonic() + 60
    while len(list(folder.iterdir())) < 2:
        assert time.monotonic() < end, "nobody else came"
        time.sleep(0.02)
    return os.getpid()


def test_ctrl_c_in_a_terminal_ends_everybody_at_once(tmp_path: Path) -> None:
    script, done = tmp_path / "stopped.py", tmp_path / "done"
    script.write_text(STOPPED)
    done.mkdir()
    process = subprocess.Popen(
        [sys.executable, str(script), str(done)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    end = time.monotonic() + 60
    while len(list(done.iterdir())) < 2:
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)  # a terminal tells the whole group
    said, _ = process.communicate(timeout=20)
    assert said == "stopped\n" and process.returncode == 0
    begun = [p.name.split(".") for p in done.iterdir()]
    assert len(begun) <= 4, "work that was waiting was begun"
    assert not any(alive(int(pid)) for _, pid in begun)
