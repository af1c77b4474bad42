"""A killed command takes its processes with it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

PARENT = """
import multiprocessing as mp, time
from concurrent.futures import ProcessPoolExecutor
from wam_ros.children import end_with_parent
if __name__ == "__main__":
    with ProcessPoolExecutor(2, mp.get_context("spawn"), end_with_parent) as pool:
        for busy in [pool.submit(time.sleep, 0.5) for _ in range(2)]:
            busy.result()
        print(*(p.pid for p in mp.active_children()), flush=True)
        time.sleep(600)
"""


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_killed_parent_leaves_no_workers(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    workers = [int(pid) for pid in process.stdout.readline().split()]
    assert len(workers) == 2 and all(alive(w) for w in workers)
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    process.stdout.close()
    end = time.monotonic() + 10
    while any(alive(w) for w in workers):
        assert time.monotonic() < end, f"{workers} go on"
        time.sleep(0.05)
