"""The supervisor with real child processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from wam_ros.bringup import ProcessSpec
from wam_ros.supervisor import ChildFailed, Supervisor

SLEEP = "import time; time.sleep(60)"


def specs(*names: str) -> list[ProcessSpec]:
    return [ProcessSpec(n, "wam", {}, respawn_delay=0.05) for n in names]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def poll_until(supervisor: Supervisor, done, seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        supervisor.poll()
        if done():
            return True
        time.sleep(0.02)
    return False


def test_a_killed_child_is_restarted() -> None:
    lines: list[str] = []
    s = Supervisor(specs("a"), lambda _: [sys.executable, "-c", SLEEP], say=lines.append)
    try:
        first = s.pids["a"]
        os.kill(first, signal.SIGKILL)
        assert poll_until(s, lambda: s.restarts == 1)
        assert s.pids["a"] != first and alive(s.pids["a"])
        assert "signal SIGKILL" in lines[0]
    finally:
        s.stop()


def test_back_off_grows() -> None:
    lines: list[str] = []
    spec = [ProcessSpec("a", "wam", {}, respawn_delay=0.4)]
    s = Supervisor(spec, lambda _: [sys.executable, "-c", "exit(1)"], say=lines.append)
    try:
        assert poll_until(s, lambda: len(lines) == 3)
        waits = [float(line.split("restart in ")[1].split(" s")[0]) for line in lines]
        assert waits == [0, 1, 2]
    finally:
        s.stop()


def test_a_wrong_configuration_is_not_retried() -> None:
    s = Supervisor(specs("a"), lambda _: [sys.executable, "-c", "exit(2)"], say=lambda _: None)
    try:
        with pytest.raises(ChildFailed, match="a cannot run"):
            poll_until(s, lambda: False, seconds=5.0)
    finally:
        s.stop()


def test_executor_ends_first_and_nothing_is_left(tmp_path) -> None:
    note = tmp_path / "order"
    code = (
        "import signal,sys,time\n"
        f"def end(*_):\n    open({str(note)!r},'a').write(sys.argv[1]+' '); sys.exit(0)\n"
        "signal.signal(signal.SIGINT, end)\n"
        f"open({str(tmp_path)!r}+'/'+sys.argv[1],'w').close()\n"
        "while True: time.sleep(0.05)"
    )
    names = ("sim", "executor", "policy")
    s = Supervisor(specs(*names), lambda p: [sys.executable, "-c", code, p.name])
    pids = list(s.pids.values())
    assert poll_until(s, lambda: all((tmp_path / n).exists() for n in names))
    s.stop()
    assert note.read_text().split()[0] == "executor"
    assert not any(alive(p) for p in pids)


def test_a_deaf_child_is_killed() -> None:
    deaf = "import signal,time; [signal.signal(s, signal.SIG_IGN) for s in (2, 15)]; time.sleep(60)"
    s = Supervisor(specs("a"), lambda _: [sys.executable, "-c", deaf])
    time.sleep(0.3)
    pid = s.pids["a"]
    s.stop(patience=0.3)
    assert not alive(pid)


def test_an_impatient_second_ctrl_c_does_not_leave_children(tmp_path) -> None:
    deaf = "import signal,time; [signal.signal(s, signal.SIG_IGN) for s in (2, 15)]; time.sleep(60)"
    s = Supervisor(specs("a", "executor"), lambda _: [sys.executable, "-c", deaf])
    time.sleep(0.3)
    pids = list(s.pids.values())
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    s.stop(patience=0.4)
    assert not any(alive(p) for p in pids)


def test_a_killed_supervisor_takes_its_processes_along(tmp_path) -> None:
    child = tmp_path / "child.py"
    child.write_text(
        "import os, pathlib, signal, time\n"
        "from wam_ros.children import stop_with_supervisor\n"
        "here = pathlib.Path(__file__).parent\n"
        "signal.signal(signal.SIGTERM, lambda *_: (here / 'told').touch())\n"
        "stop_with_supervisor()\n"
        "(here / 'up').write_text(str(os.getpid()))\n"
        "while not (here / 'told').exists(): time.sleep(0.02)\n"
    )
    parent = (
        "import sys, time\n"
        "from wam_ros.bringup import ProcessSpec\n"
        "from wam_ros.supervisor import Supervisor\n"
        f"line = [sys.executable, {str(child)!r}]\n"
        "s = Supervisor([ProcessSpec('a', 'wam', {})], lambda _: line)\n"
        "time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", parent])

    def wait_for(name: str) -> None:
        end = time.monotonic() + 20
        while not (tmp_path / name).exists():
            assert time.monotonic() < end, name
            time.sleep(0.02)

    wait_for("up")
    time.sleep(0.2)
    assert not (tmp_path / "told").exists()
    process.kill()
    process.wait(10)
    wait_for("told")  # SIGTERM, so that the executor can bring the arm to rest


def test_a_failing_start_leaves_no_child() -> None:
    made: list[int] = []

    def line(spec: ProcessSpec) -> list[str]:
        made.append(1)
        return [sys.executable, "-c", SLEEP] if len(made) == 1 else ["/no/such/program"]

    before = set(children())
    with pytest.raises(FileNotFoundError):
        Supervisor(specs("a", "b"), line)
    assert set(children()) == before


def children() -> list[int]:
    """Process ids of our live children."""
    mine = f"/proc/{os.getpid()}/task/{os.getpid()}/children"
    return [int(p) for p in open(mine).read().split()]
