"""The cable was pulled and no end was told: who may come in again, and when."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from protocol_servers import Background, window
from relay import Relay
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from wam_ros.contract import load_contract
from wam_ros.policy.hold import HoldPolicy
from wam_ros.policy.registry import make
from wam_ros.policy.remote.driver import RemoteError
from wam_ros.serving.server import CLIENT_HEADER, Limits

CONTEXT_RESET = 1
ROBOT = load_contract("franka_droid")
LONG = Limits(keep_alive=3600.0)
"""So that only a take-over can free the session."""


@pytest.fixture
def relayed(background: Background) -> Callable[[str], Relay]:
    """``relayed(url)``: a relay before the server at ``url``."""

    def start(url: str) -> Relay:
        async def make_one() -> Relay:
            made = Relay(int(url.rpartition(":")[2]))
            await made.start()
            return made

        return background.call(make_one())

    return start


@pytest.fixture
def backend() -> Iterator[Callable[..., Any]]:
    """``backend(port, name)``: one of our clients, configured, with a second's patience."""
    opened: list[Any] = []

    def start(port: int, name: str) -> Any:
        url = f"ws://127.0.0.1:{port}"
        made = make(name, {"server": url, "server_timeout": 1.0, "server_wait": 0.0})
        opened.append(made)
        made.configure(ROBOT)
        made.reset("touch it")
        return made

    yield start
    for made in opened:
        made.close()


@pytest.mark.parametrize(("name", "dialect"), [("wam_serve", "native"), ("roboarena", "roboarena")])
def test_a_client_takes_over_its_own_session(
    serve: Any, background: Background, relayed: Any, backend: Any, name: str, dialect: str
) -> None:
    url = serve(dialect=dialect, limits=LONG)
    relay = relayed(url)
    client = backend(relay.port, name)
    assert not client.infer(window(ROBOT)).context_flags & CONTEXT_RESET
    for start in (200.0, 300.0):  # and again: a client may lose its link more than once
        background.call(relay.freeze())
        with pytest.raises(RemoteError, match="no answer within 1 s"):
            client.infer(window(ROBOT, start=start))
        with pytest.raises(InvalidStatus, match="503"):  # nobody else may
            connect(url, compression=None, proxy=None)
        chunk = client.infer(window(ROBOT, start=start + 10))
        assert chunk.context_flags & CONTEXT_RESET
        assert not client.infer(window(ROBOT, start=start + 20)).context_flags & CONTEXT_RESET


def test_another_name_is_not_let_in(serve: Any, background: Background, relayed: Any) -> None:
    url = serve(dialect="native", limits=LONG)
    relay = relayed(url)

    def enter(at: str, name: str) -> Any:
        return connect(at, compression=None, proxy=None, additional_headers={CLIENT_HEADER: name})

    mine = enter(f"ws://127.0.0.1:{relay.port}", "mine")
    background.call(relay.freeze())
    for name in ("yours", "", "min", "mine2"):
        with pytest.raises(InvalidStatus, match="503"):
            enter(url, name)
    with enter(url, "mine") as back:
        assert back.recv(timeout=10)
    mine.socket.close()


def test_without_a_name_the_keep_alive_frees_the_session(
    serve: Any, background: Background, relayed: Any
) -> None:
    url = serve(dialect="native", limits=Limits(keep_alive=0.6))
    relay = relayed(url)
    gone = connect(f"ws://127.0.0.1:{relay.port}", compression=None, proxy=None)
    gone.recv(timeout=10)
    background.call(relay.freeze())
    with pytest.raises(InvalidStatus, match="503"):
        connect(url, compression=None, proxy=None)
    end = time.monotonic() + 20.0
    while time.monotonic() < end:
        try:
            with connect(url, compression=None, proxy=None) as other:
                assert other.recv(timeout=10)
            break
        except InvalidStatus:
            time.sleep(0.05)
    else:
        pytest.fail("the session was never freed")
    gone.socket.close()


def test_a_quiet_client_that_lives_keeps_its_session(serve: Any) -> None:
    """openpi-client says nothing between calls; its library answers the pings."""
    url = serve(dialect="native", limits=Limits(keep_alive=0.6))
    with connect(url, compression=None, proxy=None) as quiet:
        quiet.recv(timeout=10)
        time.sleep(2.0)
        with pytest.raises(InvalidStatus, match="503"):
            connect(url, compression=None, proxy=None)


class Slow(HoldPolicy):
    """Its first call waits, and fails once it may go on."""

    def __init__(self) -> None:
        self.asked, self.go = threading.Event(), threading.Event()
        self.calls = 0

    def infer(self, given: Any) -> Any:
        self.calls += 1
        if self.calls == 1:
            self.asked.set()
            assert self.go.wait(20)
            raise RuntimeError("of the session that is gone")
        return super().infer(given)


def test_a_call_of_the_old_session_does_not_disturb_the_new_one(
    serve: Any, background: Background, relayed: Any, backend: Any
) -> None:
    slow = Slow()
    relay = relayed(serve(dialect="native", policy=slow, limits=LONG))
    client = backend(relay.port, "wam_serve")
    raised: list[Exception] = []

    def ask() -> None:
        try:
            client.infer(window(ROBOT))
        except RemoteError as err:
            raised.append(err)

    asking = threading.Thread(target=ask)
    asking.start()
    assert slow.asked.wait(10)
    background.call(relay.freeze())
    asking.join(10)
    assert "no answer" in str(raised[0])
    threading.Timer(0.3, slow.go.set).start()  # the greeting waits for the model
    chunk = client.infer(window(ROBOT, start=200.0))
    assert chunk.context_flags & CONTEXT_RESET
    assert slow.calls == 2
