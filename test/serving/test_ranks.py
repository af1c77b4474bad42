"""A checkpoint on two ranks behind the policy interface: same chunks, and a loss is survived."""

# ruff: noqa: F811  (fixtures shared with test_wam_backend)

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

import torch
from test_wam_backend import DROID, PROMPT, SIZE, checkpoint, frame, options, run  # noqa: F401

from wam_ros.contract.data import Observation
from wam_ros.policy import ranks
from wam_ros.policy.base import PolicyError, Window
from wam_ros.policy.wam import WamPolicy
from wam_ros.wam.savings import Savings
from wam_ros.wam.wire import PeerError

ROOT = Path(__file__).resolve().parents[2]
HANG_S = 300


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    """Turn a hang of a test into a failure."""

    def expire(*_: object) -> None:
        raise AssertionError("hung")

    before = signal.signal(signal.SIGALRM, expire)
    signal.alarm(HANG_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def two(checkpoint: Path) -> Iterator[WamPolicy]:
    policy = WamPolicy({**options(checkpoint), "ranks": "2"})
    policy.configure(DROID)
    yield policy
    policy.close()


def gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody waited for yet counts as such."""
    try:
        return "State:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


def wait_gone(pid: int) -> None:
    while not gone(pid):
        time.sleep(0.05)


def first(policy: WamPolicy) -> Any:
    policy.reset(PROMPT)
    return policy.infer(Window((frame(0),)))


def test_two_ranks_give_the_chunks_of_one(checkpoint: Path, two: WamPolicy) -> None:
    one = WamPolicy(options(checkpoint))
    one.configure(DROID)

    def every(rows: tuple[int, ...]) -> list[int]:
        return list(range(max(rows[-1] - 23, 0), rows[-1] + 1))

    for a, b in zip(run(one, every), run(two, every)):
        assert np.array_equal(a.actions, b.actions)
        assert a.context_flags == b.context_flags
    head = two._session.head
    assert head.branches.forwards[1] > 0 and head.branches._link.sent_bytes > 0
    said = two.diagnostics()
    assert said["ranks"] == "2" and int(said["rank 1 process"]) > 0 and "denoise (ms)" in said
    pid = int(said["rank 1 process"])
    maps = Path(f"/proc/{pid}/maps").read_text()
    assert "libtorch" in maps and "rclpy" not in maps
    two.close()
    assert gone(pid) and not torch.distributed.is_initialized()
    two.close()


def test_both_ranks_are_quantised(checkpoint: Path) -> None:
    both, alone = (
        WamPolicy({**options(checkpoint), "precision": "fp8", "ranks": n}) for n in ("2", "1")
    )
    try:
        for each in (both, alone):
            each.configure(DROID)
        assert np.array_equal(first(both).actions, first(alone).actions)
    finally:
        both.close()


def test_a_lost_rank_is_started_again_once(two: WamPolicy, monkeypatch: Any) -> None:
    before = first(two)
    pid = two._ranks.pid
    notices = []
    start = two._ranks.start
    monkeypatch.setattr(two._ranks, "start", lambda: (notices.append(two.notice), start()))
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(PolicyError, match=r"rank 1 .*killed by signal 9.* started again"):
        two.infer(Window((frame(24),), executed_rows=24.0))
    assert notices and "lost a rank, starting it again" in notices[0] and two.notice == ""
    assert two.diagnostics()["rank restarts"] == "1" and two._ranks.pid != pid
    assert gone(pid)
    after = first(two)
    assert np.array_equal(before.actions, after.actions) and after.context_flags & 1
    # A group that is lost again at once is not worth a third try.
    second = two._ranks.pid
    os.kill(second, signal.SIGKILL)
    with pytest.raises(RuntimeError, match="lost again after a restart") as found:
        two.infer(Window((frame(24),), executed_rows=24.0))
    assert not isinstance(found.value, PolicyError) and gone(second)


class Child:
    """In place of a `Pair`: a process that does nothing."""

    def __init__(self) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])

    def branches(self, *_: Any) -> Any:
        return SimpleNamespace(deadline_s=0.0)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch) -> Iterator[ranks.Ranks]:
    monkeypatch.setattr(ranks, "Pair", lambda *_: Child())
    made = ranks.Ranks({}, Savings.all(), "cpu")
    made.start()
    yield made
    made.close()


SESSION = SimpleNamespace(reset=lambda: None, head=SimpleNamespace(dit=None, branches=None))


def test_after_a_steady_time_a_loss_is_a_new_mishap(group: ranks.Ranks) -> None:
    def lose(kind: type[Exception], words: str) -> None:
        with pytest.raises(kind, match=words), group.call(SESSION):
            raise PeerError("rank 1 is gone")

    lose(PolicyError, "started again")
    for _ in range(ranks.STEADY):
        with group.call(SESSION):
            assert group._branches is not None
    assert group._branches.deadline_s == ranks.ANSWER_S
    lose(PolicyError, "started again")
    lose(RuntimeError, "lost again after a restart")
    assert group.restarts == 2


def test_closing_during_a_call_ends_the_child_at_once(group: ranks.Ranks) -> None:
    child = group._pair.process  # type: ignore[union-attr]
    with pytest.raises(PolicyError, match="was closed"), group.call(SESSION):
        group.close()
        assert child.wait(60) == -signal.SIGKILL
        raise PeerError("rank 1 is gone")
    assert group.pid == 0 and group.restarts == 0


def test_devices_of_the_ranks(monkeypatch: Any) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert ranks.devices("cpu", 1) == ("cpu",) and ranks.devices("cpu", 2) == ("cpu", "cpu")
    assert ranks.devices("cuda", 2) == ("cuda:0", "cuda:1")
    assert ranks.devices("cuda:2", 2) == ("cuda:2", "cuda:3")
    assert ranks.devices("cuda:1, cuda:3", 2) == ("cuda:1", "cuda:3")
    for device, count, words in (
        ("cuda:3", 2, r"this machine has 4 GPUs; take ranks:=1"),
        ("cpu", 3, "there are 1, and 2"),
        ("cuda:0,cuda:1,cuda:2", 2, "names 3 devices for 2 ranks"),
    ):
        with pytest.raises(PolicyError, match=words):
            ranks.devices(device, count)


def test_a_damaged_checkpoint_leaves_no_child(checkpoint: Path, tmp_path: Path) -> None:
    policy = WamPolicy({"checkpoint": str(tmp_path), "tokenizer": str(checkpoint / "tokenizer"),
                        "device": "cpu", "ranks": "2"})  # fmt: skip
    with pytest.raises(PolicyError):
        policy.configure(DROID)
    while policy._ranks.pid:  # the thread that started the child ends it
        time.sleep(0.05)
    assert not torch.distributed.is_initialized()


PARENT = """
import sys, time
from wam_ros.contract import load_contract
from wam_ros.policy.wam import WamPolicy
from wam_ros.wam.savings import Savings
from wam_ros.wam.wire import PeerError
policy = WamPolicy({"checkpoint": sys.argv[1], "device": "cpu", "ranks": "2"})
policy.configure(load_contract("franka_droid"))
print(policy._ranks.pid, flush=True)
time.sleep(600)
"""
LOADING = """
from wam_ros.wam import distributed
from wam_ros.wam.savings import Savings
start = distributed._start
def announced(*given):
    process = start(*given)
    print(process.pid, flush=True)
    return process
distributed._start = announced
distributed.Pair("signal:pause", {}, Savings.all(), threads=1)
"""


@pytest.mark.parametrize("script", [PARENT, LOADING], ids=["serving", "still loading"])
def test_the_child_goes_when_its_parent_is_killed(checkpoint: Path, script: str) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(checkpoint)], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert not gone(child)
    parent.kill()
    parent.wait()
    wait_gone(child)


def test_the_node_reports_a_lost_rank_and_goes_on(
    checkpoint: Path, node_process: Callable[..., Any]
) -> None:
    rclpy = pytest.importorskip("rclpy", reason="needs ROS 2")
    convert = pytest.importorskip("wam_ros.nodes.convert", reason="needs the built messages")
    from diagnostic_msgs.msg import DiagnosticArray
    from std_msgs.msg import String
    from wam_ros.msg import ActionChunk, PolicyState
    from wam_ros.msg import Observation as ObservationMsg

    from wam_ros.nodes.qos import LATCHED, RELIABLE

    given = {
        "robot": "franka_droid", "policy": "wam", "checkpoint": str(checkpoint), "device": "cpu",
        "ranks": "2", "cadence": "sync",
    }  # fmt: skip
    process = node_process(
        "wam_ros.nodes.policy_node", *[w for k, v in given.items() for w in ("-p", f"{k}:={v}")]
    )
    rclpy.init()
    node = rclpy.create_node("robot")
    said: dict[str, str] = {}
    states: list[str] = []
    chunks: list[Any] = []

    def diagnosed(message: Any) -> None:
        said.update({v.key: v.value for s in message.status for v in s.values})

    node.create_subscription(DiagnosticArray, "/diagnostics", diagnosed, 10)
    node.create_subscription(
        PolicyState, "policy_state", lambda m: states.append(f"{m.state_name} {m.reason}"), LATCHED
    )
    node.create_subscription(ActionChunk, "action_chunk", chunks.append, RELIABLE)
    instruction = node.create_publisher(String, "instruction", 10)
    seen = node.create_publisher(ObservationMsg, "observation", rclpy.qos.qos_profile_sensor_data)
    views = {c.name: np.full((*SIZE, 3), 90, np.uint8) for c in DROID.cameras}
    home = np.array([DROID.joints[n].home for n in DROID.state_names])

    def look() -> None:
        now = node.get_clock().now().nanoseconds * 1e-9
        message = convert.observation_to_msg(Observation(now, views, home), "r", DROID.state_names)
        seen.publish(message)
        instruction.publish(String(data=PROMPT))

    node.create_timer(0.1, look)

    def until(enough: Callable[[], bool]) -> None:
        end = time.monotonic() + 120.0
        while not enough():
            assert process.poll() is None, process.log.read_text()
            assert time.monotonic() < end, process.log.read_text()
            rclpy.spin_once(node, timeout_sec=0.05)

    try:
        until(lambda: len(chunks) >= 1 and "rank 1 process" in said)
        child = int(said["rank 1 process"])
        assert "rclpy" not in Path(f"/proc/{child}/maps").read_text()
        os.kill(child, signal.SIGKILL)
        states.clear()
        until(lambda: any("lost a rank, starting it again" in s for s in states))
        count = len(chunks)
        until(lambda: len(chunks) > count and said["rank restarts"] == "1")
        assert chunks[-1].context_flags & 1
        child = int(said["rank 1 process"])
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        wait_gone(child)
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
