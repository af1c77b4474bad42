"""The two branches of classifier-free guidance on two ranks.

Rank 0 is the process that asks: it has the policy head, the encoders and the conditional branch.
Rank 1 is a child process with nothing but the transformer, and runs the unconditional branch. Per
forward one message goes out, one comes back; both ranks compute at the same time in between. What
guidance does not need is never asked for.

The seam for sharding a forward as well (sequence or tensor parallel) is one level below: a branch
would be a group of ranks, rank = branch * shards + shard, each running `CausalDiT` with an
``attend`` and linears that exchange inside the group (NCCL), while its first rank alone speaks to
the other branch through `wire.Link` as here. Neither `Branches` nor the policy head would change.
"""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from wam_ros.wam.branches import Embedding, Prefill, Step, Velocities
from wam_ros.wam.cache import Cache
from wam_ros.wam.dit import CausalDiT, Context
from wam_ros.wam.savings import Savings
from wam_ros.wam.wire import Kind, Link, PeerError

READY = "wam_peer_ready"
# A busy machine takes a while to end an interpreter.
_STOP_S = 10.0


class BranchRank:
    """One branch on one device: its cache and its context."""

    def __init__(self, dit: CausalDiT, savings: Savings) -> None:
        self.dit, self.savings = dit, savings
        self.cache: Cache = dit.static_cache(1) if savings.static_cache else dit.growing_cache()
        self._embedding: tuple[Embedding, torch.Tensor] | None = None
        self._context: Context | None = None

    def condition(self, text: Embedding, clip: torch.Tensor) -> None:
        """Set prompt and image features; computed when needed."""
        self._embedding, self._context = (text, clip), None

    def context(self) -> Context:
        """Projected prompt and image, with all layers' keys where they are to be kept."""
        if self._context is not None:
            return self._context
        if self._embedding is None:
            raise RuntimeError("no prompt yet: call condition() first")
        text, clip = self._embedding
        context = self.dit.embed_context(text(), clip)
        if self.savings.cache_context:
            context = self._context = self.dit.with_keys(context)
        return context

    def prefill(self, p: Prefill) -> None:
        """See `CausalDiT.prefill`."""
        want = not self.savings.dead_outputs
        where = (self.context(), self.cache)
        self.dit.prefill(p.x, p.y, p.t, p.start_frame, *where, want_output=want)

    def denoise(self, s: Step, video: bool) -> tuple[torch.Tensor | None, torch.Tensor]:
        """See `CausalDiT.denoise`."""
        inputs = (s.x, s.y, s.t, s.action, s.t_action, s.state, s.start_frame)
        return self.dit.denoise(*inputs, self.context(), self.cache, want_video=video)


class PairBranches:
    """`Branches` with the unconditional one on another rank.

    After an error it stays broken: the caches of the two ranks may differ. Close it and start anew.

    Parameters
    ----------
    deadline_s
        Longest wait for any answer. Allow for the first forward, which may compile.
    """

    def __init__(
        self, dit: CausalDiT, savings: Savings, link: Link, deadline_s: float = 10.0
    ) -> None:
        if savings.batched_cfg:
            savings = dataclasses.replace(savings, batched_cfg=False)
        self.deadline_s = deadline_s
        self.forwards = (0, 0)
        self.savings = savings
        self._own, self._link = BranchRank(dit, savings), link
        self._key: object = None
        self._negative: tuple[Embedding, torch.Tensor] | None = None
        self._broken = ""

    @contextmanager
    def _guard(self) -> Iterator[None]:
        if self._broken:
            raise PeerError(
                f"{self._broken} (since then the pair is unusable: close and restart it)"
            )
        try:
            yield
        except PeerError as error:
            self._broken = str(error)
            raise

    @property
    def cached_tokens(self) -> int:
        """See `Branches.cached_tokens`."""
        return self._own.cache.length

    def reset_counts(self) -> None:
        """See `Branches.reset_counts`."""
        self.forwards = (0, 0)

    def _count(self, uncond: int) -> None:
        self.forwards = (self.forwards[0] + 1, self.forwards[1] + uncond)

    def condition(
        self, key: object, prompt: Embedding, negative: Embedding, clip: torch.Tensor
    ) -> None:
        """See `Branches.condition`; the negative prompt travels when it or the image changes."""
        if self.savings.cache_context and key == self._key and self._negative is not None:
            return
        self._key = key
        self._own.condition(prompt, clip)
        self._negative = (negative, clip)
        with self._guard():
            tensors = (negative(), clip)
            self._link.send(Kind.CONDITION, tensors, deadline_s=self.deadline_s)

    def reset(self) -> None:
        """See `Branches.reset`."""
        self._own.cache.clear()
        with self._guard():
            self._link.send(Kind.RESET, deadline_s=self.deadline_s)

    def prefill(self, prefill: Prefill, need_uncond: bool) -> None:
        """See `Branches.prefill`. The other rank is idle, so it may as well do its own at once."""
        p = prefill
        with self._guard():
            # A call starts here; tensors of the last one may have been written into since.
            self._link.forget()
            numbers = (p.start_frame, 0)
            self._link.send(Kind.PREFILL, (p.x, p.y, p.t), numbers, self.deadline_s)
        self._own.prefill(p)
        self._count(1)

    def denoise(self, step: Step, need_uncond: bool, need_video: bool) -> Velocities:
        """See `Branches.denoise`."""
        s, save = step, self.savings
        video = need_video or not save.dead_outputs
        ask = need_uncond or not save.dead_uncond
        with self._guard():
            if ask:
                tensors = (s.x, s.y, s.t, s.action, s.t_action, s.state)
                numbers = (s.start_frame, int(video))
                self._link.send(Kind.DENOISE, tensors, numbers, self.deadline_s)
            velocity, action = self._own.denoise(s, video)
            self._count(int(ask))
            if not ask:
                return Velocities(velocity, None, action)
            what = f"answer to a forward (frame {s.start_frame}, unconditional branch)"
            answer = self._link.receive(self.deadline_s, what)
        return Velocities(velocity, answer.tensors[0] if video else None, action)

    def past(self, layer: int, uncond: bool = False) -> torch.Tensor:
        """See `Branches.past`."""
        if not uncond:
            return self._own.cache.past(layer)
        with self._guard():
            self._link.send(Kind.PAST, numbers=(layer, 0), deadline_s=self.deadline_s)
            answer = self._link.receive(self.deadline_s, "answer").tensors[0]
        assert answer is not None
        return answer


class Pair:
    """The child process and the connection to it; a context manager that ends both.

    Parameters
    ----------
    factory
        ``module:function`` that returns the child's `CausalDiT`, such as
        ``wam_ros.wam.peer:checkpoint_dit`` or ``wam_ros.wam.synthetic:random_dit``.
    arguments
        Its keyword arguments, plain JSON values (device included).
    device
        Rank 0's device.
    startup_s
        Longest time the child may take to load.
    """

    def __init__(
        self,
        factory: str,
        arguments: dict[str, Any],
        savings: Savings,
        device: torch.device | str = "cpu",
        startup_s: float = 600.0,
        threads: int = 0,
    ) -> None:
        if dist.is_initialized():
            raise PeerError("torch.distributed is in use in this process already; close that first")
        _use_loopback()
        limit = timedelta(seconds=startup_s)
        store = dist.TCPStore("127.0.0.1", 0, 2, True, limit, wait_for_workers=False)
        spec = {
            "port": store.port,
            "parent": os.getpid(),
            "factory": factory,
            "arguments": arguments,
            "savings": dataclasses.asdict(savings),
            "threads": threads or torch.get_num_threads(),
            "startup_s": startup_s,
        }
        self._log = tempfile.TemporaryFile()  # noqa: SIM115, closed with the pair
        self.process = _start(spec, self._log)
        try:
            self._join(store, startup_s)
        except BaseException:
            self.close()
            raise
        self.link = Link(1, device, self._explain)

    def branches(self, dit: CausalDiT, savings: Savings, deadline_s: float = 10.0) -> PairBranches:
        """The branch runner to give to a `PolicyHead`; ``savings`` as given here."""
        return PairBranches(dit, savings, self.link, deadline_s)

    def _join(self, store: Any, startup_s: float) -> None:
        end = time.monotonic() + startup_s
        while not store.check([READY]):
            if self.process.poll() is not None or time.monotonic() > end:
                late = "" if self.process.poll() is not None else f" within {startup_s:g} s"
                raise PeerError(f"rank 1 did not start{late}; {self._explain()}")
            time.sleep(0.05)
        limit = timedelta(seconds=max(1.0, end - time.monotonic()))
        dist.init_process_group("gloo", store=store, rank=0, world_size=2, timeout=limit)

    def _explain(self) -> str:
        """State of the child, for messages."""
        # A killed process may take a moment to be seen as one.
        for _ in range(20):
            code = self.process.poll()
            if code is not None:
                break
            time.sleep(0.01)
        if code is None:
            return f"its process {self.process.pid} is still alive"
        self._log.seek(0)
        tail = self._log.read().decode(errors="replace").strip().splitlines()[-3:]
        ended = f"killed by signal {-code}" if code < 0 else f"exited with code {code}"
        return f"its process {self.process.pid} was {ended}: {' | '.join(tail) or 'no output'}"

    def close(self) -> None:
        """End the child, at first by asking; safe to call again."""
        if self.process.poll() is None and hasattr(self, "link"):
            try:
                self.link.send(Kind.STOP, deadline_s=_STOP_S)
                self.process.wait(_STOP_S)
            except (PeerError, subprocess.TimeoutExpired):
                pass
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if dist.is_initialized():
            dist.destroy_process_group()
        self._log.close()

    def __enter__(self) -> Pair:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _use_loopback() -> None:
    """Both ranks are on this machine; its host name may not even resolve."""
    names = [n for _, n in socket.if_nameindex()]
    for name in ("lo", "lo0"):
        if name in names:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)


def _start(spec: dict[str, Any], log: Any) -> subprocess.Popen[bytes]:
    """A fresh interpreter, so that nothing of the parent (rclpy, its threads) comes along."""
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(p for p in (root, os.environ.get("PYTHONPATH", "")) if p)
    command = [sys.executable, "-m", "wam_ros.wam.peer", json.dumps(spec)]
    return subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": path}, stdout=log, stderr=subprocess.STDOUT
    )
