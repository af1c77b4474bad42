"""Messages between the two ranks: a fixed header, then the bytes of the tensors it announces.

A tensor that the other side has from the message before is announced, not sent again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import IntEnum
from typing import Any

import torch
import torch.distributed as dist

_SLOTS, _RANK = 6, 6
_SLOT_INTS = 3 + _RANK
_HEADER = 5 + _SLOTS * _SLOT_INTS
_ABSENT, _SAME, _SENT = 0, 1, 2
_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.uint8, torch.float64)


class Kind(IntEnum):
    """What a message asks for or answers."""

    STOP = 0
    CONDITION = 1
    RESET = 2
    PREFILL = 3
    DENOISE = 4
    PAST = 5
    ANSWER = 6
    FAILED = 7


class PeerError(RuntimeError):
    """The other rank is gone, stuck, or failed; the message says which, when, and what to do."""


@dataclass(frozen=True)
class Message:
    """A received message. ``numbers`` are two integers whose meaning depends on the kind."""

    kind: Kind
    numbers: tuple[int, int]
    tensors: tuple[torch.Tensor | None, ...]


class Link:
    """One end of the connection to another rank, over gloo.

    A forward's exchange is half a megabyte, so that a copy through the host costs less than a
    hundredth of the forward; gloo in turn has real deadlines and notices a closed connection.

    Parameters
    ----------
    peer
        The other rank.
    device
        Where received tensors go.
    explain
        Called after a failure: what is known about the other side.
    """

    def __init__(
        self, peer: int, device: torch.device | str, explain: Callable[[], str] = lambda: ""
    ) -> None:
        self.peer, self.device = peer, torch.device(device)
        self.sent_bytes = 0
        self._explain = explain
        self._sequence = [0, 0]
        self._sent: list[torch.Tensor | None] = [None] * _SLOTS
        self._received: list[torch.Tensor | None] = [None] * _SLOTS

    def forget(self) -> None:
        """Send everything again from now on: callers may have written into their tensors."""
        self._sent = [None] * _SLOTS

    def send(
        self,
        kind: Kind,
        tensors: Sequence[torch.Tensor | None] = (),
        numbers: tuple[int, int] = (0, 0),
        deadline_s: float = 10.0,
    ) -> None:
        """Send a message.

        Raises
        ------
        PeerError
            If it is not taken within the deadline.
        """
        header = torch.zeros(_HEADER, dtype=torch.int64)
        parts = []
        for i, tensor in enumerate(tensors):
            at = 5 + i * _SLOT_INTS
            if tensor is None:
                header[at] = _ABSENT
                continue
            header[at] = _SAME if tensor is self._sent[i] else _SENT
            header[at + 1] = _DTYPES.index(tensor.dtype)
            header[at + 2] = tensor.ndim
            header[at + 3 : at + 3 + tensor.ndim] = torch.tensor(tensor.shape, dtype=torch.int64)
            if header[at] == _SENT:
                dense = tensor.detach().clone(memory_format=torch.contiguous_format)
                parts.append(dense.view(-1).view(torch.uint8))
                self._sent[i] = tensor
        payload = torch.cat(parts).cpu() if parts else None
        size = 0 if payload is None else payload.numel()
        header[:5] = torch.tensor([kind, self._sequence[0], *numbers, size])
        self._sequence[0] += 1
        self.sent_bytes += size + header.numel() * 8
        what = f"take a message ({kind.name.lower()})"
        self._finish(lambda: dist.isend(header, self.peer), deadline_s, what)
        if payload is not None:
            self._finish(lambda: dist.isend(payload, self.peer), deadline_s, what)

    def receive(self, deadline_s: float, what: str = "send a message") -> Message:
        """Wait for the next message.

        Raises
        ------
        PeerError
            If none comes within the deadline, or the other side reports that it failed.
        """
        header = torch.empty(_HEADER, dtype=torch.int64)
        self._finish(lambda: dist.irecv(header, self.peer), deadline_s, what)
        values = header.tolist()
        kind, sequence, first, second, size = values[:5]
        payload = torch.empty(size, dtype=torch.uint8)
        if size:
            self._finish(lambda: dist.irecv(payload, self.peer), deadline_s, what)
        if sequence != self._sequence[1]:
            raise PeerError(f"rank {self.peer}: message {sequence} instead of {self._sequence[1]}")
        self._sequence[1] += 1
        if kind == Kind.FAILED:
            text = bytes(payload.tolist()).decode(errors="replace")
            raise PeerError(f"rank {self.peer} failed: {text}")
        tensors = self._unpack(values, payload.to(self.device))
        return Message(Kind(kind), (first, second), tensors)

    def _unpack(self, header: list[int], payload: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        tensors: list[torch.Tensor | None] = []
        start = 0
        for i in range(_SLOTS):
            state, dtype_index, ndim, *dims = header[5 + i * _SLOT_INTS : 5 + (i + 1) * _SLOT_INTS]
            if state == _ABSENT:
                tensors.append(None)
                continue
            if state == _SENT:
                dtype, shape = _DTYPES[dtype_index], dims[:ndim]
                stop = start + torch.Size(shape).numel() * dtype.itemsize
                # A copy, because a view of bytes needs its start aligned.
                self._received[i] = payload[start:stop].clone().view(dtype).view(shape)
                start = stop
            tensors.append(self._received[i])
        return tuple(tensors)

    def _finish(self, begin: Callable[[], Any], deadline_s: float, what: str) -> None:
        try:
            begin().wait(timedelta(seconds=deadline_s))
        except (RuntimeError, ValueError) as error:
            reason = "did not" if "imed out" in str(error) or "timeout" in str(error) else "cannot"
            about = self._explain()
            raise PeerError(
                f"rank {self.peer} {reason} {what} within {deadline_s:g} s"
                + (f"; {about}" if about else "")
            ) from error
