"""Keys and values of the observed past, per transformer layer.

Only observed video enters: a prefill forward commits its keys and values, a denoising forward sees
them together with its own, which are forgotten afterwards. Keys are stored after RMSNorm and RoPE,
layout [B, tokens, heads, head_dim].

`StaticCache` writes into a buffer allocated once, the own tokens of a denoising forward into the
scratch tail behind the past; `GrowingCache` concatenates, as the reference does, and is what the
former is tested against.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch

KV = tuple[torch.Tensor, torch.Tensor]


class Slot(NamedTuple):
    """Where a layer finds the past and puts its own tokens.

    With ``at`` None, ``keys`` and ``values`` are the past, to be concatenated with the own tokens.
    Otherwise they hold past and own tokens, the latter to be written from ``at`` on.
    """

    keys: torch.Tensor
    values: torch.Tensor
    at: int | None

    def fill(self, k: torch.Tensor, v: torch.Tensor) -> KV:
        """All keys and values to attend to, given those of the new tokens."""
        if self.at is None:
            return torch.cat((self.keys, k), 1), torch.cat((self.values, v), 1)
        self.keys[:, self.at :] = k
        self.values[:, self.at :] = v
        return self.keys, self.values


class Cache(Protocol):
    """What a forward needs of a cache. ``length`` counts the tokens of the past."""

    length: int

    def slot(self, layer: int, tokens: int, video: int) -> Slot | None:
        """The slot for ``tokens`` new tokens, the first ``video`` of which are video.

        Where past and new video together exceed the window, the oldest past is left out. None
        means that there is no past and nothing to write into.
        """

    def commit(self, layer: int, k: torch.Tensor, v: torch.Tensor) -> None:
        """Keep a prefill's keys and values, after the layer has filled its slot."""

    def advance(self, tokens: int) -> None:
        """After the last layer's commit: the past is now ``tokens`` longer."""

    def clear(self) -> None:
        """Forget the past."""

    def past(self, layer: int) -> torch.Tensor:
        """The past of a layer, [2 (k, v), B, tokens, heads, head_dim]."""


class GrowingCache:
    """A cache that concatenates.

    Parameters
    ----------
    layers
        Transformer layers.
    window
        Largest number of video tokens attended to.
    """

    def __init__(self, layers: int, window: int) -> None:
        self.window = window
        self.length = 0
        self._kv: list[KV | None] = [None] * layers

    def slot(self, layer: int, tokens: int, video: int) -> Slot | None:
        """See `Cache.slot`."""
        past = self._kv[layer]
        if past is None:
            return None
        start = max(0, past[0].shape[1] + video - self.window)
        return Slot(past[0][:, start:], past[1][:, start:], None)

    def commit(self, layer: int, k: torch.Tensor, v: torch.Tensor) -> None:
        """See `Cache.commit`."""
        slot = self.slot(layer, k.shape[1], k.shape[1])
        self._kv[layer] = (k, v) if slot is None else slot.fill(k, v)

    def advance(self, tokens: int) -> None:
        """See `Cache.advance`."""
        self.length = min(self.length + tokens, self.window)

    def clear(self) -> None:
        """See `Cache.clear`."""
        self._kv = [None] * len(self._kv)
        self.length = 0

    def past(self, layer: int) -> torch.Tensor:
        """See `Cache.past`; raises IndexError while empty."""
        kv = self._kv[layer]
        if kv is None:
            raise IndexError("the cache is empty: run a prefill first")
        return torch.stack(kv)


class StaticCache:
    """A cache of fixed size that is written in place.

    Parameters
    ----------
    buffer
        Storage [layers, 2, B, window + scratch, heads, head_dim]; see `allocate`.
    window
        Largest number of video tokens attended to. The rest of the buffer takes the register
        tokens of a denoising forward.
    """

    def __init__(self, buffer: torch.Tensor, window: int) -> None:
        self.window = window
        self.length = 0
        self._buffer = buffer

    @staticmethod
    def allocate(
        layers: int,
        batch: int,
        window: int,
        scratch: int,
        heads: int,
        head_dim: int,
        dtype: torch.dtype,
        device: torch.device | str,
    ) -> StaticCache:
        """Make a cache; ``batch`` counts the branches that share a forward."""
        shape = (layers, 2, batch, window + scratch, heads, head_dim)
        return StaticCache(torch.zeros(shape, dtype=dtype, device=device), window)

    @property
    def nbytes(self) -> int:
        """Size of the buffer in bytes."""
        return int(self._buffer.nbytes)

    def rows(self, batch: slice) -> StaticCache:
        """The same storage seen through some rows of the batch, at the present length."""
        view = StaticCache(self._buffer[:, :, batch], self.window)
        view.length = self.length
        return view

    def slot(self, layer: int, tokens: int, video: int) -> Slot | None:
        """See `Cache.slot`; raises ValueError where the tokens do not fit the buffer."""
        if video > self.window:
            raise ValueError(
                f"{video} video tokens do not fit the window of {self.window}; feed fewer frames"
            )
        room = self._buffer.shape[3] - self.window
        if tokens - video > room:
            raise ValueError(f"{tokens - video} register tokens do not fit the scratch of {room}")
        keys, values = self._buffer[layer].unbind(0)
        at = self.length
        overflow = max(0, at + video - self.window)
        if overflow and tokens > video:
            # A denoising forward must leave the past alone, so it cannot make room by moving it.
            return Slot(keys[:, overflow:at], values[:, overflow:at], None)
        if overflow:
            kept = self._buffer[layer, :, :, overflow:at].clone()
            at -= overflow
            self._buffer[layer, :, :, :at] = kept
        return Slot(keys[:, : at + tokens], values[:, : at + tokens], at)

    def commit(self, layer: int, k: torch.Tensor, v: torch.Tensor) -> None:
        """See `Cache.commit`; nothing is left to do, the slot lies in the buffer."""

    def advance(self, tokens: int) -> None:
        """See `Cache.advance`."""
        self.length = min(self.length + tokens, self.window)

    def clear(self) -> None:
        """See `Cache.clear`; the buffer stays."""
        self.length = 0

    def past(self, layer: int) -> torch.Tensor:
        """See `Cache.past`; a view."""
        return self._buffer[layer, :, :, : self.length]
