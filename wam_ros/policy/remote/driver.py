"""What a driver of a remote policy is.

A driver turns observation windows into one server's requests and its answers into rows of joint
targets. Requests are not idempotent (a repeated one advances the server's memory), so nothing is
ever sent twice: after any failure the driver is `broken` until `hello` and `reset` succeeded again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from wam_ros.contract.data import FloatArray, Kind
from wam_ros.contract.model import Contract
from wam_ros.policy.base import PolicyError, Window


class RemoteError(PolicyError):
    """A server could not be used: ``server``, what was ``sent``, what went ``wrong``, what to do.

    Attributes
    ----------
    server
        Address as the user gave it.
    retry
        Whether another attempt can succeed without anyone changing anything.
    """

    def __init__(
        self, server: str, sent: str, wrong: str, advice: str = "", *, retry: bool = True
    ) -> None:
        text = f"{server}: {sent}: {wrong}" if sent else f"{server}: {wrong}"
        super().__init__(f"{text}; {advice}" if advice else text)
        self.server = server
        self.retry = retry


@dataclass(frozen=True)
class Options:
    """What the launch arguments say about a server.

    Attributes
    ----------
    server
        ``ws://host:port``, ``wss://host:port`` or ``tcp://host:port``.
    timeout
        Deadline of one request, in seconds.
    wait
        How long to wait for a server that is not up yet, and for its first answer, in seconds.
    token
        Secret that is sent along, empty for none.
    ca_file
        Certificate authority for ``wss://``, empty for the system's own.
    names
        Contract name -> the server's name, for cameras and keys that are called otherwise.
    actions
        ``auto``, ``position`` or ``velocity``: what a server's joint actions are (openpi).
    channels
        LingBot-VA: the server's channel of each contract action, empty for the same order.
    """

    server: str
    timeout: float = 10.0
    wait: float = 60.0
    token: str = ""
    ca_file: str = ""
    names: Mapping[str, str] = field(default_factory=dict)
    actions: str = "auto"
    channels: tuple[int, ...] = ()
    max_bytes: int = 64 * 1024 * 1024


@dataclass(frozen=True)
class Capabilities:
    """What a server said about itself; None where it says nothing.

    ``image_size`` is (height, width). ``horizon`` counts rows and ``step_period`` is in seconds.
    """

    model: str = ""
    precision: str = ""
    image_size: tuple[int, int] | None = None
    horizon: int | None = None
    step_period: float | None = None
    needs_objects: bool = False
    frame_rows: tuple[int, ...] = (0,)
    """When the frames of a call were seen, in action rows before now (0 or negative)."""


@dataclass(frozen=True)
class Rows:
    """An answer: absolute targets ``(H, D)`` with a name and a kind per column."""

    actions: FloatArray
    names: tuple[str, ...]
    kinds: tuple[Kind, ...]
    context_flags: int = 0


class Driver(Protocol):
    """One protocol. Every call ends by its deadline; all raise RemoteError."""

    probe: bool
    """Whether a made-up request before the first real one is harmless and worth its time."""
    sync_only: bool
    """Whether the server has to be told what was executed, so that only `sync` is right."""

    def hello(self, contract: Contract) -> Capabilities:
        """Connect and learn what the server wants; also after it was broken."""

    def reset(self, session: str, instruction: str) -> None:
        """Begin a session; the server forgets what it saw."""

    def infer(self, window: Window, instruction: str, deadline: float) -> Rows:
        """Ask for the next chunk; ``deadline`` in seconds from now."""

    def commit(self, window: Window) -> None:
        """Tell what was executed of the last chunk and what was seen meanwhile."""

    @property
    def broken(self) -> bool:
        """Whether `hello` and `reset` are needed before the next `infer`."""

    def close(self) -> None:
        """Let go of the connection."""


def make_options(given: Mapping[str, Any]) -> Options:
    """Options from launch arguments.

    Raises
    ------
    PolicyError
        No server, or a value that cannot be read; names the argument.
    """
    server = str(given.get("server", "")).strip()
    if not server:
        raise PolicyError("no server was named; add server:=ws://HOST:PORT")
    token = ""
    if given.get("server_token_file"):
        token = _read_token(str(given["server_token_file"]))
    actions = str(given.get("server_actions", "auto") or "auto")
    if actions not in ("auto", "position", "velocity"):
        raise PolicyError(f"server_actions:={actions} is not auto, position or velocity")
    try:
        channels = tuple(int(c) for c in str(given.get("server_channels", "")).split(",") if c)
    except ValueError as err:
        raise PolicyError(
            "server_channels: channel numbers with commas, for example 0,1,2"
        ) from err
    return Options(
        server=server,
        timeout=float(given.get("server_timeout", 10.0)),
        wait=float(given.get("server_wait", 60.0)),
        token=token,
        ca_file=str(given.get("server_ca", "")),
        names=parse_names(str(given.get("server_names", ""))),
        actions=actions,
        channels=channels,
    )


def _read_token(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            token = file.read().strip()
    except (OSError, UnicodeDecodeError) as err:
        raise PolicyError(f"server_token_file:={path} cannot be read: {err}") from err
    if not token:
        raise PolicyError(f"server_token_file:={path} is empty; put the server's token in it")
    return token


def parse_names(text: str) -> dict[str, str]:
    """``"head=ego_view,left_arm=arm_l"`` as a map; PolicyError when it is not of this form."""
    names = {}
    for pair in filter(None, (p.strip() for p in text.split(","))):
        ours, sign, theirs = pair.partition("=")
        if not (sign and ours.strip() and theirs.strip()):
            raise PolicyError(f"server_names: '{pair}' is not CONTRACT_NAME=SERVER_NAME")
        names[ours.strip()] = theirs.strip()
    return names
