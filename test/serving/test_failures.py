"""Servers that are slow, die, answer by halves or send garbage; addresses, tokens, certificates."""

from __future__ import annotations

import asyncio
import socket as sockets
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from protocol_servers import Background, DreamZero, window

from wam_ros.contract import load_contract
from wam_ros.policy.base import PolicyError
from wam_ros.policy.hold import HoldPolicy
from wam_ros.policy.registry import REMOTE, make
from wam_ros.policy.remote.driver import RemoteError, make_options, parse_names
from wam_ros.serving.codec import packb
from wam_ros.serving.server import Limits

DROID, YAM = load_contract("franka_droid"), load_contract("yam")
Fake = Callable[[Any], str]


@pytest.fixture
def backend() -> Iterator[Callable[..., Any]]:
    """``backend(url, **options)``: a RoboArena backend that gives up after half a second."""
    opened: list[Any] = []

    def start(url: str, name: str = "roboarena", **options: Any) -> Any:
        given = {"server": url, "server_timeout": 0.5, "server_wait": 0.0, **options}
        made = make(name, given)
        opened.append(made)
        return made

    yield start
    for made in opened:
        made.close()


class Faulty(DreamZero):
    """Answers the next infer with ``fault(socket)``, once."""

    fault: Any = None

    async def reply(self, socket: Any, said: dict[str, Any]) -> None:
        fault = self.fault
        if said["endpoint"] == "infer" and fault is not None:
            self.fault = None
            await fault(socket)
        else:
            await super().reply(socket, said)


async def slow(socket: Any) -> None:
    await asyncio.sleep(5)


async def dying(socket: Any) -> None:
    socket.transport.abort()


async def leaving(socket: Any) -> None:
    await socket.close(1011, "bye")


async def half(socket: Any) -> None:
    """A fragment of a message and then nothing."""
    await socket.send(_fragments())


async def _fragments() -> Any:
    yield packb(np.zeros((24, 8), np.float32))[:100]
    await asyncio.sleep(5)


async def trickle(socket: Any) -> None:
    """A byte now and then: always alive, never done."""

    async def drops() -> Any:
        for byte in packb(np.zeros((24, 8), np.float32)):
            yield bytes([byte])
            await asyncio.sleep(0.05)

    await socket.send(drops())


async def cut(socket: Any) -> None:
    await socket.send(packb(np.zeros((24, 8), np.float32))[:-5])


async def garbage(socket: Any) -> None:
    await socket.send(bytes(range(256)))


async def text(socket: Any) -> None:
    await socket.send('Traceback ...\n  File "server.py"\nKeyError: no such camera')


def answer(value: Any) -> Any:
    async def send(socket: Any) -> None:
        await socket.send(packb(value))

    return send


FAULTS = [
    (slow, "no answer within 0.5 s"),
    (dying, "closed the connection without a word"),
    (leaving, "closed the connection .1011 bye"),
    (half, "no answer within 0.5 s"),
    (trickle, "no answer within 0.5 s"),
    (cut, "answered with something else"),
    (garbage, "answered with something else"),
    (text, "failed: KeyError: no such camera"),
    (answer(np.zeros((24, 7))), r"actions of shape \(24, 7\)"),
    (answer(np.zeros((1, 8))), "at least two rows of 8"),
    (answer(np.full((24, 8), np.nan)), "not numbers"),
    (answer(np.array([["a"] * 8] * 24)), "dtype <U1"),
    (answer({"action": 1}), "NoneType where actions should be"),
]


@pytest.mark.parametrize(("fault", "said"), FAULTS, ids=[s[:28] for _, s in FAULTS])
def test_a_failure_is_named_and_the_next_call_is_a_new_session(
    fake: Fake, backend: Any, fault: Any, said: str
) -> None:
    server = Faulty()
    url = fake(server)
    policy = backend(url)
    policy.configure(DROID)
    policy.reset("x")
    policy.infer(window(DROID))
    server.fault = fault
    with pytest.raises(RemoteError, match=said) as failure:
        policy.infer(window(DROID, start=110.0))
    assert str(failure.value).startswith(f"{url}: infer with 4 frames")
    requests = len(server.seen)
    chunk = policy.infer(window(DROID))
    assert chunk.context_flags & 1, "the model's memory began anew and the chunk must say so"
    # Nothing is repeated: a reset and one frame of a session that did not exist before.
    again = server.seen[requests:]
    assert [s["endpoint"] for s in again] == ["reset", "infer"]
    assert again[1]["observation/wrist_image_left"].ndim == 3
    assert again[1]["session_id"] not in [s["session_id"] for s in server.infers[:-1]]


def test_a_close_between_calls_is_no_failure(fake: Fake, backend: Any) -> None:
    """vLLM-Omni closes after 30 s without a request."""

    class Impatient(DreamZero):
        async def reply(self, socket: Any, said: dict[str, Any]) -> None:
            await super().reply(socket, said)
            if said["endpoint"] == "infer":
                await socket.close()

    server = Impatient()
    policy = backend(fake(server))
    policy.configure(DROID)
    policy.reset("x")
    assert policy.infer(window(DROID)).context_flags == 0
    for _ in range(200):
        if policy._driver.broken:
            break
        time.sleep(0.01)
    assert policy.infer(window(DROID)).context_flags == 1
    assert server.connections == 2


def test_a_server_that_takes_the_connection_and_says_nothing(backend: Any) -> None:
    with sockets.create_server(("127.0.0.1", 0)) as mute:
        port = mute.getsockname()[1]
        with pytest.raises(RemoteError, match=r"connecting: no answer within 0.5 s"):
            backend(f"ws://127.0.0.1:{port}").configure(DROID)


def test_a_server_that_stops_reading_does_not_block_us(backend: Any, fake: Fake) -> None:
    class Deaf(DreamZero):
        async def __call__(self, socket: Any) -> None:
            await socket.send(packb(self.hello))
            await self.reply(socket, {"endpoint": "reset"})
            socket.transport.pause_reading()
            try:
                await asyncio.sleep(20)
            finally:
                socket.transport.abort()

    policy = backend(fake(Deaf()))
    policy.configure(DROID)
    policy.reset("x")
    with pytest.raises(RemoteError, match="no answer within"):
        for _ in range(50):  # more than the buffers between us hold
            policy._driver.infer(window(DROID), "x", 0.5)


def test_a_server_that_is_not_there_yet_is_waited_for(backend: Any, fake: Fake) -> None:
    with sockets.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
    policy = backend(f"ws://127.0.0.1:{port}", server_wait=0.0)
    with pytest.raises(RemoteError, match="is it running there"):
        policy.configure(DROID)
    policy = backend(f"ws://127.0.0.1:{port}", server_wait=15.0)
    thread = threading.Thread(target=policy.configure, args=(DROID,))
    thread.start()

    async def late() -> Any:
        from websockets.asyncio.server import serve

        return await serve(DreamZero(), "127.0.0.1", port, compression=None)

    running = Background()
    running.call(late())
    thread.join(15)
    assert not thread.is_alive() and not policy._driver.broken
    running.stop()


def test_too_long_an_answer_is_refused(fake: Fake) -> None:
    from wam_ros.policy.remote.driver import Options
    from wam_ros.policy.remote.roboarena import RoboArenaDriver

    driver = RoboArenaDriver(Options(fake(DreamZero(np.zeros((4000, 8)))), max_bytes=50_000))
    driver.hello(DROID)
    driver.reset("s", "x")
    with pytest.raises(RemoteError, match="the answer was longer than 50000 bytes"):
        driver.infer(window(DROID), "x", 2.0)
    driver.close()


# ---- our server and our client ---------------------------------------------------------------


def test_native_round_trip_for_every_robot(serve: Callable[..., str], backend: Any) -> None:
    for robot in ("agibot_g1", "franka_droid", "yam"):
        contract = load_contract(robot)
        policy = backend(serve(robot, dialect="native"), "wam_serve")
        policy.configure(contract)
        policy.warm_up()
        policy.reset("wave")
        look = window(contract, cadence="async")
        chunk, bare = policy.infer(look), HoldPolicy()
        bare.configure(contract)
        expected = bare.infer(look)
        np.testing.assert_array_equal(chunk.actions, expected.actions)
        assert (chunk.names, chunk.kinds, chunk.t0) == (
            expected.names,
            expected.kinds,
            look.newest.t0,
        )
        assert policy.model.startswith("holds still at ws://")


def test_native_carries_the_scripted_teacher(serve: Callable[..., str], backend: Any) -> None:
    g1 = load_contract("agibot_g1")
    scripted = make("scripted", {"latency": 0.0})
    scripted.configure(g1)
    policy = backend(serve("agibot_g1", scripted, "native"), "wam_serve", server_timeout=5.0)
    policy.configure(g1)
    assert policy.needs_objects
    policy.warm_up()
    with pytest.raises(ValueError, match="touch"):
        policy.reset("make me a sandwich")
    policy.reset("touch the green block with the right hand")
    look = window(g1, count=1)
    with pytest.raises(RemoteError, match="the simulation has not said where"):
        policy.infer(look)


def test_contracts_that_differ_are_refused(serve: Callable[..., str], backend: Any) -> None:
    with pytest.raises(RemoteError, match=r"'yam' as robot, the contract here says 'agibot_g1'"):
        backend(serve("yam", dialect="native"), "wam_serve").configure(load_contract("agibot_g1"))


def test_our_roboarena_client_and_server(serve: Callable[..., str], backend: Any) -> None:
    policy = backend(serve("franka_droid"))
    policy.configure(DROID)
    policy.warm_up()
    policy.reset("x")
    look = window(DROID)
    for _ in range(3):
        chunk = policy.infer(look)
    np.testing.assert_allclose(chunk.actions[0], look.newest.state, rtol=1e-6)


def test_second_client_is_told_that_the_server_is_busy(
    serve: Callable[..., str], backend: Any
) -> None:
    url = serve("yam", dialect="native")
    backend(url, "wam_serve").configure(YAM)
    with pytest.raises(RemoteError, match=r"HTTP 503 .busy: this server carries one session"):
        backend(url, "wam_serve").configure(YAM)


def test_token_and_certificate(serve: Callable[..., str], backend: Any, tmp_path: Path) -> None:
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    (tmp_path / "token").write_text("secret\n")
    (tmp_path / "other").write_text("wrong\n")
    url = serve("yam", dialect="native", token="secret", tls=context)
    ca, token = str(tmp_path / "ca.pem"), str(tmp_path / "token")
    with pytest.raises(RemoteError, match=r"not trusted.*server_ca"):
        backend(url, "wam_serve", server_wait=30.0).configure(YAM)
    with pytest.raises(RemoteError, match=r"HTTP 401.*server_token_file"):
        wrong = str(tmp_path / "other")
        backend(
            url, "wam_serve", server_ca=ca, server_token_file=wrong, server_wait=30.0
        ).configure(YAM)
    policy = backend(url, "wam_serve", server_ca=ca, server_token_file=token)
    policy.configure(YAM)
    policy.reset("x")
    assert policy.infer(window(YAM)).actions.shape == (24, 14)


def test_a_server_that_times_out_answers_our_client(
    serve: Callable[..., str], backend: Any
) -> None:
    class Slow(HoldPolicy):
        def infer(self, window: Any) -> Any:
            time.sleep(0.4)
            return super().infer(window)

    url = serve("yam", Slow(), "native", limits=Limits(call=0.1))
    policy = backend(url, "wam_serve", server_timeout=5.0)
    policy.configure(YAM)
    policy.reset("x")
    with pytest.raises(RemoteError, match=r"took longer than 0.1 s"):
        policy.infer(window(YAM))


# ---- launch arguments ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", REMOTE)
def test_no_server_and_wrong_addresses_are_refused(name: str) -> None:
    with pytest.raises(PolicyError, match=r"add server:="):
        make(name, {})
    with pytest.raises(PolicyError, match=r"write (ws|tcp)://HOST"):
        make(name, {"server": "192.168.1.5:8000"})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"server_actions": "torque"}, "not auto, position or velocity"),
        ({"server_channels": "1,a"}, "channel numbers with commas"),
        ({"server_names": "head"}, "'head' is not CONTRACT_NAME=SERVER_NAME"),
        ({"server_token_file": "/nowhere/token"}, "cannot be read"),
    ],
)
def test_wrong_arguments_are_named(given: dict[str, str], said: str) -> None:
    with pytest.raises(PolicyError, match=said):
        make_options({"server": "ws://h:1", **given})


def test_names_and_channels_are_read() -> None:
    assert parse_names(" head = ego_view, arm=left ") == {"head": "ego_view", "arm": "left"}
    assert make_options({"server": "ws://h:1", "server_channels": "2,0,1"}).channels == (2, 0, 1)
