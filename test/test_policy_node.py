"""The policy node around made-up backends: what it publishes, in which order, and when it fails."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from wam_ros.contract import load_contract
from wam_ros.contract.data import ActionChunk, Observation
from wam_ros.policy.base import Afterthought, PolicyError, Window

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2")
convert = pytest.importorskip("wam_ros.nodes.convert", reason="needs the built messages")

DROID = load_contract("franka_droid")
HOME = np.array([DROID.joints[n].home for n in DROID.state_names])
RED = np.zeros((16, 32, 3), np.uint8)
RED[..., 0] = 200


class Imagining:
    """Chunks at home and four red frames of each; ``gate`` holds up the first decoder that runs."""

    name = model = "imagining"
    precision = ""
    needs_objects = False

    def __init__(self) -> None:
        self.calls: list[float] = []
        self.gate, self.inside = threading.Event(), threading.Event()
        self.held = 0
        self.fails: list[BaseException] = []
        self.resets = 0

    def configure(self, contract: Any) -> None:
        """Nothing to load."""

    def warm_up(self) -> None:
        """Nothing to warm up."""

    def reset(self, instruction: str) -> None:
        self.resets += 1

    def infer(self, window: Window) -> ActionChunk:
        if self.fails:
            raise self.fails.pop(0)
        self.calls.append(window.newest.t0)
        horizon, names = DROID.rates.horizon, DROID.action_names
        return ActionChunk(
            window.newest.t0, DROID.rates.step_period, np.tile(HOME, (horizon, 1)), names,
            tuple(DROID.action_kinds), anchor_state=HOME,
        )  # fmt: skip

    def imagine(self) -> Afterthought:
        number, t0 = len(self.calls), self.calls[-1]

        def frames() -> Iterator[tuple[float, Any]]:
            for i in range(4):
                if i == 1 and self.held in (0, number):
                    self.held = number
                    self.inside.set()
                    assert self.gate.wait(60)
                yield t0 + 0.1 * (i + 1), RED

        return Afterthought(lambda: math.nan if number == 1 else 0.25, frames())

    def diagnostics(self) -> dict[str, str]:
        return {"denoise (ms)": "12"}

    def close(self) -> None:
        """Nothing to free."""


class Host:
    """The node in this process, a robot that is seen at 50 Hz, and what the node published."""

    def __init__(self, backend: Any) -> None:
        from diagnostic_msgs.msg import DiagnosticArray
        from sensor_msgs.msg import CompressedImage
        from std_msgs.msg import Float32, String
        from wam_ros.msg import Observation as ObservationMsg

        from wam_ros.nodes import policy_node

        self.node = policy_node.PolicyNode()
        self.events: list[tuple[str, Any]] = []
        for kind in ("_chunk_out", "_video_out", "_surprise_out"):
            self._record(kind, self.events)
        # A reader gets the newest state only: what holds for a moment is noted where it is said.
        self.states: list[tuple[str, Any]] = []
        self._record("_state_out", self.states)
        self.robot = rclpy.create_node("robot")
        self.video: list[Any] = []
        self.values: dict[str, str] = {}
        sensor = rclpy.qos.qos_profile_sensor_data
        self.robot.create_subscription(CompressedImage, "imagined_video", self.video.append, sensor)
        self.robot.create_subscription(DiagnosticArray, "/diagnostics", self._diagnosed, 10)
        self.robot.create_subscription(Float32, "surprise", lambda m: None, 10)
        self.said = self.robot.create_publisher(String, "instruction", 10)
        self.seen = self.robot.create_publisher(ObservationMsg, "observation", sensor)
        self.robot.create_timer(0.02, self._look)
        self.spin = rclpy.executors.SingleThreadedExecutor()
        self.spin.add_node(self.node)
        self.spin.add_node(self.robot)
        self.word = String(data="stay")

    def _record(self, name: str, to: list[tuple[str, Any]]) -> None:
        inner = getattr(self.node, name)

        class Recorder:
            def publish(_, message: Any) -> None:
                to.append((name, message))
                inner.publish(message)

        setattr(self.node, name, Recorder())

    def _diagnosed(self, message: Any) -> None:
        self.values.update({v.key: v.value for s in message.status for v in s.values})

    def _look(self) -> None:
        self.said.publish(self.word)
        views = {c.name: np.zeros((8, 8, 3), np.uint8) for c in DROID.cameras}
        now = self.node.get_clock().now().nanoseconds * 1e-9
        self.seen.publish(
            convert.observation_to_msg(Observation(now, views, HOME), "r", DROID.state_names)
        )

    def of(self, name: str) -> list[Any]:
        return [m for n, m in self.events if n == name]

    def until(self, enough: Callable[[], bool], seconds: float = 60.0) -> None:
        end = time.monotonic() + seconds
        while not enough():
            assert time.monotonic() < end, [n for n, _ in self.events][-20:]
            self.spin.spin_once(timeout_sec=0.02)

    def close(self) -> None:
        self.node.shut_down()
        self.node.destroy_node()
        self.robot.destroy_node()


@pytest.fixture
def host(domain_id: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Host]]:
    running: list[Host] = []

    def start(backend: Any, cadence: str = "sliding") -> Host:
        from wam_ros.nodes import policy_node

        monkeypatch.setattr(policy_node, "make", lambda name, options: backend)
        parameters = {
            "robot": "franka_droid",
            "cadence": cadence,
            "imagined_video": "true",
            "period": "0.6",
        }
        given = [w for k, v in parameters.items() for w in ("-p", f"{k}:={v}")]
        rclpy.init(args=["--ros-args", *given])
        running.append(Host(backend))
        return running[-1]

    yield start
    for each in running:
        each.close()
    rclpy.try_shutdown()


def test_a_slow_decoder_delays_no_chunk_and_its_frames_are_dropped(host: Any) -> None:
    backend = Imagining()
    h = host(backend)
    h.node._resting = False  # else the first chunk's rows start on arrival, its frames move along
    h.until(backend.inside.is_set)
    before = len(h.of("_chunk_out"))
    assert h.events[0][0] == "_chunk_out", "the chunk goes out first"
    # The decoder stays where it is; chunks keep coming.
    h.until(lambda: len(h.of("_chunk_out")) >= before + 3)
    assert len(h.of("_video_out")) == 1
    backend.gate.set()
    h.until(lambda: len(h.of("_video_out")) >= 6)
    held = backend.calls[backend.held - 1]
    assert abs(convert.to_seconds(h.of("_video_out")[0].header.stamp) - held - 0.1) < 1e-5
    # No later frame belongs to that chunk, and each comes after the chunk it belongs to.
    known: list[float] = []
    frames = 0
    for name, message in h.events:
        stamp = convert.to_seconds(message.header.stamp) if name != "_surprise_out" else 0.0
        if name == "_chunk_out":
            known.append(stamp)
        if name == "_video_out":
            owner = [t for t in known if any(abs(stamp - t - 0.1 * i) < 1e-5 for i in range(1, 5))]
            assert owner and (owner[-1] > held or frames == 0)
            frames += 1
    h.until(lambda: bool(h.video))
    picture = cv2.imdecode(np.frombuffer(h.video[-1].data, np.uint8), cv2.IMREAD_COLOR)
    assert h.video[-1].format == "jpeg" and picture.shape == (16, 32, 3)
    assert picture[8, 16, 2] > 180 and picture[8, 16, :2].max() < 30, "red stays red"
    h.until(lambda: "imagined frames" in h.values)
    assert int(h.values["imagined videos cut short"]) >= 1 and h.values["denoise (ms)"] == "12"


def test_surprise_comes_once_per_chunk(host: Any) -> None:
    backend = Imagining()
    backend.gate.set()
    h = host(backend)
    h.until(lambda: len(h.of("_chunk_out")) >= 6)
    h.until(lambda: len(h.of("_surprise_out")) >= 5)
    values = [m.data for m in h.of("_surprise_out")]
    # NaN too where a busy machine left no time for it.
    assert math.isnan(values[0]) and all(v == 0.25 or math.isnan(v) for v in values)
    # One per chunk: that of the newest may still be on its way.
    order = [n for n, _ in h.events if n != "_video_out"]
    assert order[0] == "_chunk_out" and len(h.of("_chunk_out")) - len(values) in (0, 1)


def test_frames_are_stamped_when_the_rows_run_later_than_their_stamps(host: Any) -> None:
    """In sync the executor starts the rows when they arrive."""
    backend = Imagining()
    backend.gate.set()
    h = host(backend, "sync")
    h.until(lambda: len(h.of("_video_out")) >= 4)
    chunk = h.of("_chunk_out")[0]
    t0 = convert.to_seconds(chunk.header.stamp)
    late = convert.to_seconds(chunk.inference_end) - t0
    first = convert.to_seconds(h.of("_video_out")[0].header.stamp)
    assert first >= t0 + 0.1 + late - 1e-6


def test_a_backend_without_imagination_publishes_neither(host: Any) -> None:
    backend = Imagining()
    plain = SimpleNamespace(
        **{n: getattr(backend, n) for n in dir(backend) if n[0] != "_" and n != "imagine"}
    )
    h = host(plain)
    h.until(lambda: len(h.of("_chunk_out")) >= 3)
    assert not h.of("_video_out") and not h.of("_surprise_out")


@pytest.mark.parametrize("kind", [ValueError, PolicyError])
def test_what_failed_for_one_instruction_is_not_said_of_the_next(host: Any, kind: Any) -> None:
    class Puzzled(Imagining):
        def reset(self, instruction: str) -> None:
            super().reset(instruction)
            if instruction == "gibberish":
                self.inside.set()
                assert self.gate.wait(60)
                raise kind("nobody understands 'gibberish'")

    backend = Puzzled()
    h = host(backend)
    h.word.data = "gibberish"
    h.until(backend.inside.is_set)
    h.word.data = "stay"
    h.until(lambda: h.node._turn.instruction == "stay")
    backend.gate.set()
    h.until(lambda: len(h.of("_chunk_out")) >= 2)
    assert not [s.reason for _, s in h.states if "nobody understands" in s.reason]


def test_out_of_memory_starts_over_and_a_lost_device_ends_the_process(host: Any) -> None:
    """Only a new process gets a GPU context back; the supervisor starts one."""

    class AcceleratorError(RuntimeError):
        """As torch names it."""

    backend = Imagining()
    backend.gate.set()
    backend.fails = [PolicyError("model: out of GPU memory: tried 2 GiB. Free the GPU")]
    h = host(backend)
    h.until(lambda: len(h.of("_chunk_out")) >= 2)
    assert backend.resets == 2, "the call after a failure opens a window"
    said = [s.reason for _, s in h.states if "out of GPU memory" in s.reason]
    assert said and h.of("_chunk_out")[0].context_flags & 2
    backend.fails = [AcceleratorError("CUDA error: an illegal memory access was encountered")]
    with pytest.raises(SystemExit) as ended:
        h.until(lambda: False)
    assert ended.value.code == 3


def test_its_state_tells_when_the_instruction_was_said_last(host: Any) -> None:
    """From that, an executor that held meanwhile knows that the same words are meant anew."""
    backend = Imagining()
    backend.gate.set()
    before = time.time()
    h = host(backend)

    def stamps() -> list[float]:
        said = [s for _, s in h.states if s.instruction == "stay"]
        return [convert.to_seconds(s.instruction_stamp) for s in said]

    h.until(lambda: len(h.of("_chunk_out")) >= 2 and len(set(stamps())) >= 2)
    assert stamps() == sorted(stamps()) and before < stamps()[0] and stamps()[-1] < time.time()
    assert backend.resets == 1, "it is one instruction all the same"


def test_a_word_heard_after_a_newer_one_is_told_as_the_newest(host: Any) -> None:
    """A goal ends and clears its instruction while the next one waits to be read.

    Executor and simulation hear the two in the order in which they were said; what counts is the
    policy's, and they have to hear of that.
    """
    backend = Imagining()
    backend.gate.set()
    h = host(backend)
    h.until(lambda: bool(h.of("_chunk_out")))
    node = h.node
    h.said.publish = lambda message: None  # the robot falls silent
    h.until(lambda: node._word[1] < time.time_ns() - 300_000_000)
    said_at = time.time_ns()
    node._runs._put("")
    cleared = node._word[1]
    assert said_at <= cleared
    node._on_instruction(h.word, {"source_timestamp": said_at})
    assert node._word[0] == "stay" and cleared < node._word[1] <= time.time_ns()
    node._on_instruction(h.word, {"source_timestamp": said_at - 3_600_000_000_000})
    stamps = [(s.instruction_stamp.sec, s.instruction_stamp.nanosec) for _, s in h.states]
    assert stamps == sorted(stamps), "a clock that is behind must not turn the order round"
    assert h.states[-1][1].instruction == "stay"


def test_its_own_word_does_not_come_back_however_late_it_is_read(host: Any) -> None:
    """After a stall the end of a goal is served before the word that began it."""
    h = host(Imagining())
    h.said.publish = lambda message: None
    node = h.node
    node._runs._put("blue")
    begun = node._word[1]
    node._runs._put("")
    node._on_instruction(SimpleNamespace(data="blue"), {"source_timestamp": begun + 100_000})
    assert node._turn.instruction == "" and node._word[0] == ""
    node._on_instruction(SimpleNamespace(data="blue"), {"source_timestamp": time.time_ns()})
    assert node._turn.instruction == "blue", "somebody else's is another matter"


def test_a_teacher_waits_for_a_simulation_to_be_discovered(host: Any) -> None:
    """Its first call would else fail, and a slow one has stalled before the second is done."""

    class Teacher(Imagining):
        needs_objects = True

    backend = Teacher()
    backend.gate.set()
    h = host(backend)
    h.until(lambda: h.node._turn.instruction == "stay")
    said = time.monotonic()
    h.until(lambda: time.monotonic() > said + 0.7)
    assert not backend.calls
    h.node._objects["red_block"] = np.zeros(3)
    h.until(lambda: bool(h.of("_chunk_out")), 10)
    h.node._objects.clear()
    h.word.data = "wait"
    h.until(lambda: h.of("_chunk_out")[-1].instruction == "wait", 10)
    assert time.monotonic() - h.node._taken > 1.5, (
        "but not for ever: the backend says what it lacks"
    )
