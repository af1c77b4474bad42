"""Seconds spent per stage of a call."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Stopwatch:
    """Adds up the wall time of named stages.

    On a GPU a stage is only measured rightly when the device is waited for at its ends; that costs
    a little overlap, so it is asked for with ``synchronize``.
    """

    def __init__(self, device: torch.device, synchronize: bool = False) -> None:
        self._wait = synchronize and device.type == "cuda"
        self._device = device
        self.seconds: dict[str, float] = {}

    def _now(self) -> float:
        if self._wait:
            torch.cuda.synchronize(self._device)
        return time.perf_counter()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what runs inside."""
        start = self._now()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + self._now() - start
