"""A driver as a policy backend: sessions, reconnects, deadlines, checks."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable

import numpy as np

from wam_ros.contract.data import ActionChunk, Observation
from wam_ros.contract.model import Contract
from wam_ros.policy.base import Afterthought, PolicyError, Window
from wam_ros.policy.remote.driver import Capabilities, Driver, Options, RemoteError

CONTEXT_RESET = 1
_PAUSES = (0.0, 0.2, 0.5, 1.0, 2.0, 5.0)


class RemotePolicy:
    """Speaks to a server through ``make(options)``.

    A request is sent once. When it failed, the next call connects anew and begins a session, so
    that the server never counts an observation twice; the chunk after that carries the flag
    CONTEXT_RESET.
    """

    precision = ""
    needs_objects = False

    def __init__(self, name: str, make: Callable[[Options], Driver], options: Options) -> None:
        self.name = name
        self.model = options.server
        self.frame_rows: tuple[int, ...] = (0,)
        self.view_size: tuple[int, int] | None = None
        self._options = options
        self._driver = make(options)
        self._instruction = ""
        self._must_reset = True
        self._asked = False
        self._failures = 0
        self._closed = threading.Event()

    def configure(self, contract: Contract) -> None:
        """Wait for the server and compare it with the contract.

        Raises
        ------
        RemoteError
            Not there in time, or it does not fit; names server, contract and fix.
        """
        self._contract = contract
        give_up = time.monotonic() + self._options.wait
        while True:
            try:
                return self._greet()
            except RemoteError as err:
                if not err.retry or time.monotonic() > give_up or self._closed.wait(0.5):
                    raise

    def _greet(self) -> None:
        said = self._driver.hello(self._contract)
        self._check(said)
        self._said = said
        self.frame_rows = said.frame_rows
        self.needs_objects = said.needs_objects
        self.precision = said.precision
        self.view_size = said.image_size
        if said.model:
            self.model = f"{said.model} at {self._options.server}"

    def _check(self, said: Capabilities) -> None:
        rates = self._contract.rates
        if said.step_period is not None and abs(said.step_period - rates.step_period) > 1e-4:
            raise RemoteError(
                self._options.server, "", f"acts every {said.step_period:.4f} s, the contract of "
                f"{self._contract.robot} every {rates.step_period:.4f} s",
                "use the checkpoint that was trained for this rate", retry=False,
            )  # fmt: skip

    def warm_up(self) -> None:
        """One made-up request, so that a wrong answer or a slow first call shows before motion."""
        if not self._driver.probe:
            return
        self._driver.reset(uuid.uuid4().hex, "stay where you are")
        deadline = max(self._options.wait, self._options.timeout)
        self._driver.infer(self._made_up(), "stay where you are", deadline)
        self._must_reset = True

    def _made_up(self) -> Window:
        contract = self._contract
        grey = np.full((contract.view_height, contract.view_width, 3), 128, np.uint8)
        state = np.array([contract.joints[n].home for n in contract.state_names])
        return Window((Observation(0.0, {c.name: grey for c in contract.cameras}, state),))

    def reset(self, instruction: str) -> None:
        """Begin a session for ``instruction``, over a new connection when the old one is gone."""
        self._instruction = instruction
        self._must_reset = True
        self._begin()

    def _begin(self) -> None:
        if self._failures and self._closed.wait(_PAUSES[min(self._failures, len(_PAUSES) - 1)]):
            raise PolicyError("the backend was closed")
        try:
            if self._driver.broken:
                self._greet()
            self._driver.reset(uuid.uuid4().hex, self._instruction)
        except RemoteError:
            self._failures += 1
            raise
        self._failures = 0
        self._must_reset, self._asked = False, False

    def infer(self, window: Window) -> ActionChunk:
        """Ask once; RemoteError says what went wrong, and the next call starts over."""
        if self._driver.sync_only and window.cadence != "sync":
            raise RemoteError(
                self._options.server, "", f"{self.name} is told what was executed, so it cannot "
                f"run in cadence {window.cadence}", "start with cadence:=sync", retry=False,
            )  # fmt: skip
        flags = 0
        if self._must_reset or self._driver.broken:
            # The server closed meanwhile (vLLM-Omni does after 30 s idle): nothing was under way.
            self._begin()
            flags = CONTEXT_RESET
        self._must_reset = True  # until the answer is here
        try:
            if self._asked:
                self._driver.commit(window)
            rows = self._driver.infer(window, self._instruction, self._options.timeout)
        except RemoteError:
            self._failures += 1
            raise
        self._must_reset, self._asked = False, True
        newest = window.newest
        return ActionChunk(
            t0=newest.t0,
            step_period=self._contract.rates.step_period,
            actions=rows.actions,
            names=rows.names,
            kinds=rows.kinds,
            anchor_state=newest.state.copy(),
            context_flags=flags | rows.context_flags,
        )

    def imagine(self) -> Afterthought | None:
        """What came with the last chunk, where the protocol carries it."""
        found: Afterthought | None = getattr(self._driver, "imagine", lambda: None)()
        return found

    def close(self) -> None:
        """Stop waiting and close the connection."""
        self._closed.set()
        self._driver.close()
