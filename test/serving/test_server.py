"""`wam serve`: the recorded frame logic over a socket, limits, health, token, TLS, one session."""

from __future__ import annotations

import asyncio
import http.client
import json
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from wam_ros.policy.base import PolicyError, Window, device_lost
from wam_ros.policy.hold import HoldPolicy
from wam_ros.serving.codec import packb, unpackb
from wam_ros.serving.config import DROID_14B
from wam_ros.serving.native import PROTOCOL
from wam_ros.serving.server import BUSY, Limits

Serve = Callable[..., str]
VIEWS = ("exterior_image_0_left", "exterior_image_1_left", "wrist_image_left")


class Recorder(HoldPolicy):
    """Remembers what it was shown; ``fail`` is raised by the next call."""

    def __init__(self) -> None:
        self.windows: list[Window] = []
        self.instructions: list[str] = []
        self.fail: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()

    def reset(self, instruction: str) -> None:
        self.instructions.append(instruction)

    def infer(self, window: Window) -> Any:
        self.gate.wait(20)
        if self.fail is not None:
            raised, self.fail = self.fail, None
            raise raised
        self.windows.append(window)
        return super().infer(window)


def request(frames: int = 1, first: int = 0, **more: Any) -> dict[str, Any]:
    """An infer request whose frame i has the value first + i in every pixel, per camera."""
    said: dict[str, Any] = {"endpoint": "infer", "prompt": "pick up the cup"}
    for offset, view in zip((0, 100, 150), VIEWS):
        values = (first + np.arange(frames) + offset).astype(np.uint8)
        pixels = values[:, None, None, None] * np.ones((1, 180, 320, 3), np.uint8)
        said[f"observation/{view}"] = pixels if frames > 1 else pixels[0]
    said["observation/joint_position"] = np.linspace(0.1, 0.7, 7)
    said["observation/gripper_position"] = np.array([0.25])
    return said | more


def open_socket(url: str, **given: Any) -> Any:
    return connect(url, compression=None, max_size=None, proxy=None, **given)


def ask(socket: Any, said: Any) -> Any:
    socket.send(packb(said))
    reply = socket.recv(timeout=10)
    return reply if isinstance(reply, str) else unpackb(reply)


def test_frames_reach_the_model_as_recorded(serve: Serve, golden: Path) -> None:
    log = json.loads((golden / "server_frames.json").read_text())["log"]
    policy, sent = Recorder(), 0
    names = {
        "exterior_1": "video.exterior_image_1_left",
        "exterior_2": "video.exterior_image_2_left",
        "wrist": "video.wrist_image_left",
    }
    with open_socket(serve(policy=policy)) as socket:
        assert unpackb(socket.recv()) == {**DROID_14B.to_wire(), "image_resolution": [180, 320]}
        for entry in log:
            if entry["op"] == "reset":
                assert ask(socket, {"endpoint": "reset"}) == "reset successful"
                continue
            joints = np.array(entry["state"]["state.joint_position"][-1])
            said = request(entry["frames_sent"], sent, session_id=entry["session_id"])
            said["observation/joint_position"] = joints
            sent += entry["frames_sent"]
            reply = ask(socket, said)
            assert list(reply.shape) == entry["response_shape"]
            assert reply.dtype == entry["response_dtype"]
            window = policy.windows[-1]
            for camera, name in names.items():
                seen = [int(f.views[camera][0, 0, 0]) for f in window.frames]
                assert seen == entry["model_video"][name]
            assert window.newest.state.tolist() == [*joints, 0.25]


def test_prompt_and_session_reset_the_model(serve: Serve) -> None:
    policy = Recorder()
    with open_socket(serve(policy=policy)) as socket:
        socket.recv()
        for session, prompt in (("a", "x"), ("a", "x"), ("a", "y"), ("b", "y"), (None, "y")):
            ask(socket, request(session_id=session, prompt=prompt))
        assert policy.instructions == ["x", "y", "y"]
        ask(socket, {"endpoint": "reset"})
        ask(socket, request(session_id="b", prompt="y"))
        assert policy.instructions == ["x", "y", "y", "y"]


def test_a_new_connection_starts_over(serve: Serve) -> None:
    policy = Recorder()
    url = serve(policy=policy)
    for _ in range(2):
        with open_socket(url) as socket:
            socket.recv()
            ask(socket, request(session_id="a"))
            ask(socket, request(session_id="a"))
    assert [len(w.frames) for w in policy.windows] == [1, 4, 1, 4]
    assert len(policy.instructions) == 2


def test_absent_state_is_zero_and_any_other_endpoint_infers(serve: Serve) -> None:
    policy = Recorder()
    said = request(endpoint="anything")
    del said["observation/joint_position"], said["observation/gripper_position"]
    with open_socket(serve(policy=policy)) as socket:
        socket.recv()
        assert ask(socket, said).shape == (24, 8)
    assert not policy.windows[0].newest.state.any()


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (b"\xc1garbage", "not a msgpack message"),
        ("text", "text message"),
        (packb([1, 2]), "msgpack maps"),
        (packb({"prompt": "x"}), "'endpoint' is missing"),
        (packb({"endpoint": "infer", "prompt": "x"}), "no frame of"),
        (packb(request() | {"observation/wrist_image_left": np.zeros((9, 9, 3), np.uint8)}),
         r"\(9, 9\) pixels; this server takes \(180, 320\)"),
        (packb(request() | {"observation/wrist_image_left": np.zeros((180, 320, 3))}),
         "must be uint8"),
        (packb(request() | {"observation/joint_position": np.zeros(6)}), "7 finite numbers"),
        (packb(request() | {"observation/joint_position": np.full(7, np.nan)}), "finite"),
    ],
)  # fmt: skip
def test_a_bad_request_gets_a_traceback_and_the_server_lives(
    serve: Serve, said: Any, text: str
) -> None:
    url = serve()
    with open_socket(url) as socket:
        socket.recv()
        socket.send(said)
        reply = socket.recv(timeout=10)
        assert isinstance(reply, str)
        assert pytest.importorskip("re").search(text, reply)
        with pytest.raises(ConnectionClosed) as end:
            socket.recv(timeout=10)
        assert end.value.rcvd is not None and end.value.rcvd.code == 1011
    with open_socket(url) as socket:
        socket.recv()
        assert ask(socket, request()).shape == (24, 8)


def test_a_failing_model_is_reported_and_served_again(serve: Serve) -> None:
    policy = Recorder()
    url = serve(policy=policy)
    policy.fail = RuntimeError("out of luck")
    with open_socket(url) as socket:
        socket.recv()
        assert "RuntimeError: out of luck" in ask(socket, request())
    with open_socket(url) as socket:
        socket.recv()
        assert ask(socket, request()).shape == (24, 8)


def test_second_client_is_refused_until_the_first_is_gone(serve: Serve) -> None:
    url = serve()
    with open_socket(url) as first:
        first.recv()
        with pytest.raises(InvalidStatus) as refusal:
            open_socket(url)
        assert refusal.value.response.status_code == 503
        assert BUSY in refusal.value.response.body.decode()
        assert ask(first, request()).shape == (24, 8)
    with _patiently(url) as second:
        second.recv()


def _patiently(url: str) -> Any:
    """Connect as soon as the server noticed that the other client is gone."""
    for _ in range(200):
        try:
            return open_socket(url)
        except InvalidStatus:
            time.sleep(0.02)
    raise AssertionError("the server stayed busy")


def test_a_call_that_takes_too_long_is_answered_and_nobody_overtakes_it(serve: Serve) -> None:
    policy = Recorder()
    url = serve(policy=policy, limits=Limits(call=0.3))
    policy.gate.clear()
    with open_socket(url) as socket:
        socket.recv()
        assert "longer than 0.3 s" in ask(socket, request())
    with pytest.raises(InvalidStatus):  # the model is still at it
        open_socket(url)
    policy.gate.set()
    with _patiently(url) as socket:
        socket.recv()
        assert ask(socket, request()).shape == (24, 8)


def test_a_client_that_leaves_during_a_call_does_not_mix_sessions(serve: Serve) -> None:
    policy = Recorder()
    url = serve(policy=policy)
    policy.gate.clear()
    socket = open_socket(url)
    socket.recv()
    socket.send(packb(request(session_id="a")))
    time.sleep(0.1)
    socket.close()
    with pytest.raises(InvalidStatus):
        open_socket(url)
    policy.gate.set()
    with _patiently(url) as second:
        second.recv()
        ask(second, request(session_id="a"))
    assert [len(w.frames) for w in policy.windows] == [1, 1]


def test_a_request_above_the_size_limit_closes_with_1009(serve: Serve) -> None:
    url = serve(limits=Limits(max_bytes=100_000))
    with open_socket(url) as socket:
        socket.recv()
        with pytest.raises(ConnectionClosed) as end:
            socket.send(packb(request()))
            socket.recv(timeout=10)
        assert end.value.rcvd is not None and end.value.rcvd.code == 1009


def test_an_idle_client_is_shown_out(serve: Serve) -> None:
    with open_socket(serve(limits=Limits(idle=0.1))) as socket:
        socket.recv()
        with pytest.raises(ConnectionClosed) as end:
            socket.recv(timeout=10)
        assert end.value.rcvd is not None and "idle" in end.value.rcvd.reason


def health(url: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection(url.removeprefix("ws://"), timeout=10)
    connection.request("GET", "/healthz")
    reply = connection.getresponse()
    return reply.status, reply.read().decode().strip()


def test_health_needs_no_session_and_no_token(serve: Serve) -> None:
    url = serve(token="secret")
    assert health(url) == (200, "OK")
    with open_socket(url, additional_headers={"Authorization": "Api-Key secret"}) as socket:
        socket.recv()
        assert health(url) == (200, "OK")


@pytest.mark.parametrize("header", [None, "Api-Key wrong", "Basic secret", "Api-Key", "Api-Key é"])
def test_wrong_token_is_refused(serve: Serve, header: str | None) -> None:
    headers = {"Authorization": header} if header else None
    with pytest.raises((InvalidStatus, ConnectionClosed, EOFError, UnicodeError)) as refusal:
        open_socket(serve(token="secret"), additional_headers=headers)
    if isinstance(refusal.value, InvalidStatus):
        assert refusal.value.response.status_code == 401


def test_tls_with_a_self_made_certificate(serve: Serve, tmp_path: Path) -> None:
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    url = serve(tls=context)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)

    # Not the blocking client: it reads and writes one TLS socket in two threads, which OpenSSL
    # under Python 3.11 does not always survive.
    async def talk(**given: Any) -> Any:
        from websockets.asyncio.client import connect as connect_async

        async with connect_async(url, compression=None, max_size=None, **given) as socket:
            await socket.recv()
            await socket.send(packb(request()))
            return unpackb(await asyncio.wait_for(socket.recv(), 10))

    assert asyncio.run(talk(ssl=trusting)).shape == (24, 8)
    with pytest.raises(ssl.SSLCertVerificationError):
        asyncio.run(talk())


def test_roboarena_is_for_droid_only(serve: Serve) -> None:
    with pytest.raises(PolicyError, match="dialect native"):
        serve("agibot_g1")


def test_device_loss_is_told_from_lack_of_memory() -> None:
    memory = type("OutOfMemoryError", (RuntimeError,), {})
    assert device_lost(RuntimeError("CUDA error: an illegal memory access was encountered"))
    assert not device_lost(memory("CUDA out of memory. Tried to allocate"))
    assert not device_lost(ValueError("shape"))


def test_a_lost_device_ends_the_server(serve: Serve, background: Any) -> None:
    policy = Recorder()
    url = serve(policy=policy)
    policy.fail = RuntimeError("CUDA error: unspecified launch failure")
    with open_socket(url) as socket:
        socket.recv()
        assert "launch failure" in ask(socket, request())
    with pytest.raises(RuntimeError, match="launch failure"):
        background._tasks[0].result(10)


def test_native_greeting_names_everything(serve: Serve) -> None:
    with open_socket(serve("agibot_g1", dialect="native")) as socket:
        said = unpackb(socket.recv())
    assert said["protocol"] == PROTOCOL
    assert said["views"]["top_head"] == [176, 320, 3]
    assert len(said["action_names"]) == len(said["action_kinds"]) == 22
    assert said["horizon"] == 24 and said["step_period"] == pytest.approx(1 / 30)


def native(sequence: int, frames: int = 1, **more: Any) -> dict[str, Any]:
    times = 5.0 + 0.1 * np.arange(frames)
    views = ("top", "left", "right")
    return {
        "endpoint": "infer", "sequence": sequence, "t0": times[-1], "frame_times": times,
        "cadence": "async", "state": np.zeros((frames, 14)), "executed_rows": 3.0,
        "views": {v: np.zeros((frames, 176, 320, 3), np.uint8) for v in views},
    } | more  # fmt: skip


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"sequence": 1}, "answered already"),
        ({"sequence": "3"}, "whole number"),
        ({"endpoint": "kill"}, "neither 'reset', 'infer' nor 'imagine'"),
        ({"cadence": "often"}, "not one of sync"),
        ({"state": np.zeros((1, 13))}, r"\(1, 13\) instead of \(1, 14\)"),
        ({"state": np.full((1, 14), np.inf)}, "finite"),
        ({"frame_times": np.array([5.0, 5.0])}, "growing times"),
        ({"t0": 4.0}, "must be the last"),
        ({"views": {}}, "must be a map of top"),
        ({"executed_rows": "many"}, "must be a number"),
        ({"rows": np.zeros(2)}, "one number for each of 1 frames"),
        ({"objects": {"block": np.array(["x"])}}, "does not hold numbers"),
    ],
)
def test_native_bad_request_keeps_the_connection(
    serve: Serve, change: dict[str, Any], text: str
) -> None:
    import re

    with open_socket(serve("yam", dialect="native")) as socket:
        socket.recv()
        reset = {"endpoint": "reset", "sequence": 1, "instruction": "wave"}
        assert ask(socket, reset) == {"sequence": 1, "status": "reset"}
        error = ask(socket, native(2) | change)["error"]
        assert error["kind"] == "bad_request"
        assert re.search(text, error["message"])
        reply = ask(socket, native(3, frames=4))
        assert reply["sequence"] == 3 and reply["t0"] == pytest.approx(5.3)
        assert reply["actions"].shape == (24, 14)


def test_native_needs_a_reset_first_and_after_a_failure(serve: Serve) -> None:
    policy = Recorder()
    with open_socket(serve("yam", policy, "native")) as socket:
        socket.recv()
        assert "no session" in ask(socket, native(1))["error"]["message"]
        ask(socket, {"endpoint": "reset", "sequence": 2, "instruction": "wave"})
        policy.fail = RuntimeError("boom")
        error = ask(socket, native(3))["error"]
        assert error == {"kind": "model", "message": "RuntimeError: boom"}
        assert "no session" in ask(socket, native(4))["error"]["message"]


def test_a_server_ends_while_its_model_loads(tmp_path: Path) -> None:
    """Ctrl-C must not wait for the minutes that 14B take from a disk."""
    code = (
        "import sys, time, wam_ros.policy.registry as r, wam_ros.serving.cli as c\n"
        "class Heavy(r.HoldPolicy):\n"
        "    def configure(self, contract): print('loading', flush=True); time.sleep(600)\n"
        "r._FACTORIES['hold'] = lambda o: Heavy()\n"
        "sys.exit(c.main(['serve', 'yam', '--port', '0']))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "loading\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
