"""GR00T N1.6 and N1.7 over ZeroMQ: one request, one reply, msgpack with npy arrays inside.

Written from the published server (``gr00t/policy/server_client.py``); newer ones may differ. A REQ
socket whose reply is lost can never send again, so it is thrown away and made anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from wam_ros.contract.data import FloatArray, Kind
from wam_ros.contract.model import Contract
from wam_ros.policy.base import PolicyError, Window
from wam_ros.policy.remote.driver import Capabilities, Options, RemoteError, Rows
from wam_ros.policy.remote.wire import as_rows
from wam_ros.serving.codec import CodecError
from wam_ros.serving.npy_codec import packb, unpackb


def _library() -> Any:
    try:
        import zmq
    except ImportError as err:
        raise PolicyError("the library pyzmq is missing; type: pip install pyzmq") from err
    return zmq


class Gr00tDriver:
    """Driver for any robot whose keys the checkpoint knows, by the same or another name."""

    probe = True
    sync_only = False

    def __init__(self, options: Options) -> None:
        parts = urlsplit(options.server)
        if parts.scheme != "tcp" or not parts.hostname or not parts.port:
            raise PolicyError(
                f"server:={options.server} is no ZeroMQ address; write tcp://HOST:5555"
            )
        self._zmq = _library()
        self.options = options
        self._context = self._zmq.Context()
        self._socket: Any = None
        self._modalities: Mapping[str, Any] = {}

    @property
    def broken(self) -> bool:
        """Whether the last reply was lost."""
        return self._socket is None

    def hello(self, contract: Contract) -> Capabilities:
        """Ask for the modality description and match its keys with the contract's."""
        self._contract = contract
        self._drop()
        self._socket = self._context.socket(self._zmq.REQ)
        self._socket.setsockopt(self._zmq.LINGER, 0)
        self._socket.setsockopt(self._zmq.MAXMSGSIZE, self.options.max_bytes)
        self._socket.connect(self.options.server)
        said = self._ask("get_modality_config", None, self.options.timeout)
        if not isinstance(said, dict) or not {"video", "state", "action"} <= set(said):
            raise self._fatal("get_modality_config", "the answer describes no video, state, action")
        self._modalities = said
        self._match(contract)
        rows = tuple(int(i) for i in self._entry("video", "delta_indices", [0]))
        horizon = len(self._entry("action", "delta_indices", []))
        return Capabilities(frame_rows=rows, horizon=horizon or None)

    def _entry(self, part: str, field: str, default: Any) -> Any:
        found = self._modalities.get(part) or {}
        return found.get(field, default) if isinstance(found, dict) else default

    def _match(self, contract: Contract) -> None:
        """Pair every key the server wants with one of ours; RemoteError names those left over."""
        names = self.options.names

        def pairs(part: str, ours: dict[str, str]) -> dict[str, str]:
            theirs = [str(k) for k in self._entry(part, "modality_keys", [])]
            found = {t: o for t in theirs for o, n in ours.items() if t.split(".")[-1] == n}
            missing = [t for t in theirs if t not in found]
            if missing and part != "action":
                raise self._fatal(
                    "", f"wants the {part} keys {', '.join(missing)}; {contract.robot} "
                    f"has {', '.join(ours.values())}", "pair them with server_names:=ours=theirs",
                )  # fmt: skip
            return found

        cameras = {c.name: names.get(c.name, c.model_key.split(".")[-1]) for c in contract.cameras}
        self._cameras = pairs("video", cameras)
        self._state = pairs("state", {k.key: names.get(k.key, k.key) for k in contract.state})
        ours = {k.key: names.get(k.key, k.key) for k in contract.action}
        self._action = {o: t for t, o in pairs("action", ours).items()}
        needed = [k.key for k in contract.action if k.enabled and k.kind == "position"]
        lacking = [k for k in needed if k not in self._action]
        if lacking:
            raise self._fatal(
                "", f"gives no action for {', '.join(lacking)} of {contract.robot}; it gives "
                f"{', '.join(map(str, self._entry('action', 'modality_keys', [])))}",
                "pair them with server_names:=ours=theirs",
            )  # fmt: skip

    def reset(self, session: str, instruction: str) -> None:
        """Tell the policy to forget."""
        self._ask("reset", {"options": None}, self.options.timeout)

    def infer(self, window: Window, instruction: str, deadline: float) -> Rows:
        """Frames ``(1, T, H, W, 3)``, states ``(1, T, D)`` float32 and the instruction."""
        count = len(self._entry("video", "delta_indices", [0]))
        frames = window.frames[-count:]
        frames = (frames[0],) * (count - len(frames)) + frames
        states = len(self._entry("state", "delta_indices", [0]))
        keys = {k.key: k for k in self._contract.state}
        video = {t: np.stack([f.views[o] for f in frames])[None] for t, o in self._cameras.items()}
        state = {}
        for theirs, ours in self._state.items():
            part = window.newest.state[keys[ours].start : keys[ours].stop]
            state[theirs] = np.tile(part.astype(np.float32), (1, states, 1))
        language = self._entry("language", "modality_keys", ["task"])
        observation = {
            "video": video,
            "state": state,
            "language": {str(k): [[instruction]] for k in language},
        }
        reply = self._ask("get_action", {"observation": observation, "options": None}, deadline)
        action = reply[0] if isinstance(reply, list) and reply else reply
        if not isinstance(action, dict):
            raise self._broke("get_action", f"answered {type(reply).__name__} instead of actions")
        return self._rows(action)

    def _rows(self, action: Mapping[Any, Any]) -> Rows:
        columns: list[FloatArray] = []
        names: list[str] = []
        kinds: list[Kind] = []
        for key in self._contract.action:
            theirs = self._action.get(key.key)
            if theirs is None:
                continue
            found = action.get(theirs, action.get(f"action.{theirs}"))
            try:
                if not isinstance(found, np.ndarray) or found.ndim not in (2, 3):
                    raise ValueError(f"is {type(found).__name__}, not an array (1, rows, dims)")
                columns.append(as_rows(found[0] if found.ndim == 3 else found, len(key.joints)))
                if len(columns[-1]) != len(columns[0]):
                    raise ValueError(f"has {len(columns[-1])} rows, others have {len(columns[0])}")
            except ValueError as err:
                raise self._broke("get_action", f"'{theirs}': {err}") from err
            names += key.joints
            kinds += [key.kind] * len(key.joints)
        return Rows(np.concatenate(columns, axis=1), tuple(names), tuple(kinds))

    def _ask(self, endpoint: str, data: Any, deadline: float) -> Any:
        if self._socket is None:
            raise RemoteError(self.options.server, endpoint, "not sent, the last reply was lost")
        request: dict[str, Any] = {"endpoint": endpoint}
        if data is not None:
            request["data"] = data
        if self.options.token:
            request["api_token"] = self.options.token
        try:
            self._socket.send(packb(request), self._zmq.NOBLOCK)
            answered = self._socket.poll(int(deadline * 1000), self._zmq.POLLIN)
            reply = self._socket.recv() if answered else None
        except self._zmq.ZMQError as err:
            raise self._broke(endpoint, f"{err}") from err
        if reply is None:
            raise self._broke(
                endpoint, f"no answer within {deadline:g} s",
                "is the server up and at this address? server_timeout:= sets the limit",
            )  # fmt: skip
        try:
            decoded = unpackb(reply, self.options.max_bytes)
        except CodecError as err:
            raise self._broke(endpoint, f"answered with something else: {err}") from err
        if isinstance(decoded, dict) and "error" in decoded:
            wrong = f"answered: {str(decoded['error'])[:400]}"
            if "Unauthorized" in wrong:
                raise self._fatal(endpoint, wrong, "give the token's file: server_token_file:=")
            raise self._broke(endpoint, wrong)
        return decoded

    def _broke(self, sent: str, wrong: str, advice: str = "") -> RemoteError:
        self._drop()
        return RemoteError(self.options.server, sent, wrong, advice)

    def _fatal(self, sent: str, wrong: str, advice: str = "") -> RemoteError:
        self._drop()
        return RemoteError(self.options.server, sent, wrong, advice, retry=False)

    def _drop(self) -> None:
        if self._socket is not None:
            self._socket.close(linger=0)
            self._socket = None

    def commit(self, window: Window) -> None:
        """Nothing: GR00T does not ask what was executed."""

    def close(self) -> None:
        """Close socket and context."""
        self._drop()
        self._context.term()
