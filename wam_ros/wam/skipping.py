"""Which of the sampler's steps run the transformer; the others reuse its last velocities."""

from __future__ import annotations

import torch
import torch.nn.functional as F

# Steps that run, of 16. Any other number of steps runs them all.
_STATIC = {
    8: (0, 1, 2, 6, 10, 13, 14, 15),
    7: (0, 1, 2, 6, 10, 14, 15),
    6: (0, 1, 5, 10, 14, 15),
    5: (0, 1, 2, 7, 12),
}
_STATIC_STEPS = 16


def static_steps(steps: int, dit_steps: int) -> tuple[int, ...]:
    """Steps that run the transformer, of ``steps``; all of them where no mask is defined."""
    if steps == _STATIC_STEPS and dit_steps in _STATIC:
        return _STATIC[dit_steps]
    return tuple(range(steps))


class StaticSkip:
    """Run the steps of a fixed mask."""

    def __init__(self, steps: int, dit_steps: int) -> None:
        self._run = frozenset(static_steps(steps, dit_steps))
        self._last = max(self._run)

    def runs(self, step: int) -> bool:
        """Whether the transformer runs at ``step``."""
        return step in self._run

    def is_last(self, step: int) -> bool:
        """Whether no later step can run."""
        return step >= self._last

    def computed(self, velocity: torch.Tensor) -> None:
        """Take note of a computed video velocity."""


class DynamicSkip:
    """Skip while the last two computed video velocities point the same way.

    Cosine similarity above 0.95 skips four steps, above 0.93 two; one step always runs after.
    """

    LEVELS = ((0.95, 4), (0.93, 2))

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._pending = 0
        self._forced = False
        self._before: torch.Tensor | None = None
        self._last: torch.Tensor | None = None

    def runs(self, step: int) -> bool:
        """Whether the transformer runs at ``step``; ask once per step, in order."""
        if self._pending > 0:
            self._pending -= 1
            self._forced = self._pending == 0
            return False
        if self._forced:
            self._forced = False
            return True
        for level, count in self.LEVELS:
            if self._similarity() > level:
                self._pending = count - 1
                self._forced = self._pending == 0
                return False
        return True

    def is_last(self, step: int) -> bool:
        """Whether no later step can run; only the final step is sure of that."""
        return step == self._steps - 1

    def computed(self, velocity: torch.Tensor) -> None:
        """Take note of a computed video velocity [B, ...]."""
        self._before, self._last = self._last, velocity

    def _similarity(self) -> float:
        if self._before is None or self._last is None:
            return -1.0
        a, b = self._before.flatten(1).float(), self._last.flatten(1).float()
        return float(F.cosine_similarity(a, b, dim=1).mean())
