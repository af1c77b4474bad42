"""Keep a list of processes running without `launch`: restart with back-off, stop in order."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from wam_ros.bringup import ProcessSpec
from wam_ros.children import SUPERVISOR

_STOP_ORDER = ("executor",)  # it brings the arm to rest before anything else goes
_MAX_DELAY = 10.0
_HEALTHY = 20.0  # seconds after which a process counts as well and its back-off starts over


def command(spec: ProcessSpec) -> list[str]:
    """Command line of one node, with the running interpreter; or the one that the spec names."""
    if spec.argv:
        return list(spec.argv)
    line = [sys.executable, "-m", spec.module, "--ros-args", "-r", f"__ns:=/{spec.namespace}"]
    for name, value in spec.parameters.items():
        if value == "":
            continue
        text = str(value).lower() if isinstance(value, bool) else str(value)
        line += ["-p", f"{name}:={text}"]
    return line


@dataclass
class _Child:
    spec: ProcessSpec
    process: subprocess.Popen[bytes]
    started: float
    failures: int = 0
    retry_at: float | None = None


class Supervisor:
    """Runs processes, each in a process group of its own, until `stop`.

    They end with the supervisor as well, should it be killed (`children.stop_with_supervisor`).

    Parameters
    ----------
    specs
        What to run, in start order.
    make_command
        Turns a spec into a command line.
    log
        Where the children's output goes; None keeps the terminal.
    say
        Called with one line for every event a person should see.
    """

    def __init__(
        self,
        specs: Sequence[ProcessSpec],
        make_command: Callable[[ProcessSpec], list[str]] = command,
        log: Path | None = None,
        say: Callable[[str], None] = print,
    ) -> None:
        self._make = make_command
        self._say = say
        self._log: IO[bytes] | None = log.open("ab") if log else None
        self.restarts = 0
        self._children: list[_Child] = []
        try:
            for spec in specs:
                self._children.append(_Child(spec, self._spawn(spec), time.monotonic()))
        except BaseException:
            self.stop()
            raise

    def _spawn(self, spec: ProcessSpec) -> subprocess.Popen[bytes]:
        out: Any = self._log
        return subprocess.Popen(
            self._make(spec),
            env={**os.environ, **spec.environment, SUPERVISOR: str(os.getpid())},
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT if out else None,
        )

    def poll(self) -> None:
        """Restart what has died; call a few times a second.

        Exit code 2 means that the configuration cannot be used: restarting would not help.
        """
        now = time.monotonic()
        for child in self._children:
            code = child.process.poll()
            if code is None:
                if now - child.started > _HEALTHY:
                    child.failures = 0
                continue
            if code == 2:
                raise ChildFailed(f"{child.spec.name} cannot run with this configuration")
            if child.retry_at is None:
                delay = min(_MAX_DELAY, child.spec.respawn_delay * 2.0**child.failures)
                child.failures += 1
                child.retry_at = now + delay
                self._say(f"{child.spec.name} ended ({_reason(code)}); restart in {delay:.0f} s")
            elif now >= child.retry_at:
                child.process, child.started = self._spawn(child.spec), now
                child.retry_at = None
                self.restarts += 1

    def stop(self, patience: float = 4.0) -> None:
        """End everything: the executor first, politely, then by force; leaves nothing behind."""
        with _undisturbed():
            first = [c for c in self._children if c.spec.name in _STOP_ORDER]
            for group in (first, [c for c in self._children if c not in first]):
                _end(group, patience)
        if self._log:
            self._log.close()

    @property
    def pids(self) -> dict[str, int]:
        """Process id by name."""
        return {c.spec.name: c.process.pid for c in self._children}


class ChildFailed(RuntimeError):
    """A process ended in a way that a restart cannot mend."""


def _end(group: Sequence[_Child], patience: float) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        alive = [c for c in group if c.process.poll() is None]
        for child in alive:
            _signal(child.process.pid, number)
        end = time.monotonic() + patience
        while time.monotonic() < end and any(c.process.poll() is None for c in alive):
            time.sleep(0.02)
    for child in group:
        _signal(child.process.pid, signal.SIGKILL)  # grandchildren, if any


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Ignore a second, impatient Ctrl-C: it would leave half of the processes behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kept = {n: signal.signal(n, signal.SIG_IGN) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, number)


def _reason(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
