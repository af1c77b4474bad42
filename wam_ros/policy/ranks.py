"""The model's second rank: a child process for the unconditional branch of guidance.

The child knows nothing of ROS. It ends when it is told to, and when this process ends in any way.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from wam_ros.policy.base import PolicyError
from wam_ros.wam.distributed import Pair, PairBranches
from wam_ros.wam.dit import CausalDiT
from wam_ros.wam.savings import Savings
from wam_ros.wam.wire import PeerError

ANSWER_S, FIRST_ANSWER_S = 10.0, 120.0
"""Longest wait for a forward of the other rank; the first ones may compile."""
STEADY = 20
"""Calls after which a lost rank counts as a new mishap."""


def devices(device: str, ranks: int) -> tuple[str, ...]:
    """A device per rank, of ``device`` as the person gave it.

    ``cuda:1,cuda:3`` names both; of one GPU the next follows; a CPU serves all.

    Raises
    ------
    PolicyError
        For a number of ranks other than 1 or 2, or GPUs that are not there.
    """
    if ranks not in (1, 2):
        raise PolicyError(f"ranks:={ranks}: there are 1, and 2 with guidance split over them")
    if ranks == 1:
        return (device,)
    given = tuple(d.strip() for d in device.split(","))
    if len(given) not in (1, ranks):
        raise PolicyError(f"device:={device} names {len(given)} devices for {ranks} ranks")
    if len(given) < ranks:
        first = torch.device(given[0])
        index = first.index or 0
        given = tuple(
            f"cuda:{index + i}" if first.type == "cuda" else given[0] for i in range(ranks)
        )
    count = torch.cuda.device_count()
    wanted = [torch.device(d).index or 0 for d in given if d.startswith("cuda")]
    if wanted and max(wanted) >= count:
        raise PolicyError(
            f"ranks:={ranks} on {', '.join(given)}: this machine has {count} GPUs; "
            "take ranks:=1, or name two with device:=cuda:0,cuda:1"
        )
    return given


class Ranks:
    """Starts the second rank, and starts it once more when it is lost.

    Parameters
    ----------
    arguments
        Of `peer.checkpoint_dit`: folder, base, device, dtype.
    savings, device
        As the head in this process has them.
    """

    def __init__(
        self, arguments: dict[str, Any], savings: Savings, device: str, factory: str = ""
    ) -> None:
        self._factory = factory or "wam_ros.wam.peer:checkpoint_dit"
        self._arguments, self._savings, self._device = arguments, savings, device
        self._use = threading.Lock()
        self._pair: Pair | None = None
        self._branches: PairBranches | None = None
        self._closed = False
        self._left = 1
        self._calls = 0
        self.restarts = 0
        self.notice = ""
        """What happens to the group right now, for people; empty when all is well."""

    @property
    def pid(self) -> int:
        """Process id of the child; 0 without one."""
        return self._pair.process.pid if self._pair is not None else 0

    def start(self) -> None:
        """Start the child and wait until it has loaded.

        Raises
        ------
        PolicyError
            It did not start; says what it printed.
        """
        try:
            pair = Pair(self._factory, self._arguments, self._savings, self._device)
        except PeerError as err:
            raise PolicyError(f"ranks:=2: {err}") from err
        self._pair = pair
        if self._closed:
            self.close()
            raise PolicyError("the backend was closed")

    def alongside(self, work: Callable[[], Any]) -> Any:
        """Start the child while ``work`` runs; returns what that returned."""
        failed: list[BaseException] = []

        def start() -> None:
            try:
                self.start()
            except BaseException as err:
                failed.append(err)

        thread = threading.Thread(target=start, daemon=True)
        thread.start()
        try:
            found = work()
        except BaseException:
            self.close()  # a child that still loads is closed by `start` itself
            raise
        thread.join()
        if failed:
            raise failed[0]
        return found

    def branches(self, dit: CausalDiT) -> PairBranches:
        """What the head is to compute with."""
        assert self._pair is not None
        self._branches = self._pair.branches(dit, self._savings, FIRST_ANSWER_S)
        return self._branches

    @contextmanager
    def call(self, session: Any) -> Iterator[None]:
        """Around a call of ``session``: a rank that is lost ends the call and is started again.

        Raises
        ------
        PolicyError
            A rank was lost; the next call starts a window on a new group.
        RuntimeError
            It was lost again soon after.
        """
        with self._use:
            try:
                yield
            except PeerError as err:
                session.reset()
                self._lost(err, session)
            self._calls += 1
            if self._calls == 2 and self._branches is not None:  # a first and a continuing call
                self._branches.deadline_s = ANSWER_S
            if self._calls >= STEADY:
                self._left = 1

    def _lost(self, err: PeerError, session: Any) -> None:
        self._end()
        if self._closed:
            raise PolicyError("the backend was closed") from err
        if not self._left:
            raise RuntimeError(f"a rank was lost again after a restart: {err}") from err
        self._left, self._calls = self._left - 1, 0
        self.notice = f"lost a rank, starting it again: {err}"
        try:
            self.start()
            session.head.branches = self.branches(session.head.dit)
            self.restarts += 1
        finally:
            self.notice = ""
        raise PolicyError(f"{err}; it was started again, beginning a new window") from err

    def _end(self) -> None:
        if self._pair is not None:
            self._pair.close()
            self._pair = None

    def close(self) -> None:
        """End the child, at once if a call is under way."""
        self._closed = True
        if self._use.acquire(timeout=1.0):
            try:
                self._end()
            finally:
                self._use.release()
        elif self._pair is not None:
            self._pair.process.kill()  # the call that waits for it fails and cleans up

    def diagnostics(self) -> dict[str, str]:
        """For `/diagnostics`."""
        return {"ranks": "2", "rank 1 process": str(self.pid), "rank restarts": str(self.restarts)}
