"""Forwards of static shape, recorded once as CUDA graphs and replayed.

A forward's shapes depend on how many frames are cached (four lengths in a window of nine), on
whether it is a prefill and whether its video is wanted. Each such variant becomes one graph over
buffers of its own: inputs are copied in, the transformer runs without a launch per kernel, outputs
are copied out. Keys and values live in the `StaticCache`, where a graph writes as recorded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch

from wam_ros.wam.branches import LocalBranches, Prefill, Step
from wam_ros.wam.cache import Cache
from wam_ros.wam.dit import CausalDiT, Context
from wam_ros.wam.savings import Savings

Outputs = tuple[torch.Tensor | None, ...]


class Recorder(Protocol):
    """Makes a recording of a function that reads and writes fixed tensors."""

    def record(self, run: Callable[[], Outputs]) -> Callable[[], Outputs]:
        """Return what repeats ``run``; its outputs are overwritten at every repetition."""


class CudaRecorder:
    """CUDA graphs with one memory pool, as they never run at the same time."""

    WARM_UP = 2

    def __init__(self, device: torch.device) -> None:
        if device.type != "cuda":
            raise RuntimeError(f"CUDA graphs need a CUDA device, the model is on '{device}'")
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()

    def record(self, run: Callable[[], Outputs]) -> Callable[[], Outputs]:
        """See `Recorder.record`. Warms up first: kernels are chosen and compiled then."""
        stream = torch.cuda.Stream(self._device)
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):
            for _ in range(self.WARM_UP):
                run()
        torch.cuda.current_stream(self._device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            outputs = run()

        def replay() -> Outputs:
            graph.replay()
            return outputs

        return replay


class EagerRecorder:
    """Runs the function again. Shows, without a GPU, that the fixed buffers hold all it reads."""

    def record(self, run: Callable[[], Outputs]) -> Callable[[], Outputs]:
        """See `Recorder.record`."""
        return run


class _Variant:
    """One recorded forward: input buffers and the replay."""

    def __init__(self, inputs: tuple[torch.Tensor | None, ...]) -> None:
        self.inputs = tuple(None if t is None else t.clone() for t in inputs)
        self.replay: Callable[[], Outputs] = lambda: ()

    def run(self, inputs: tuple[torch.Tensor | None, ...]) -> Outputs:
        for buffer, tensor in zip(self.inputs, inputs):
            if buffer is not None and tensor is not None:
                buffer.copy_(tensor)
        # Callers keep predictions from step to step; the next replay would change them.
        return tuple(None if t is None else t.clone() for t in self.replay())


class GraphedBranches(LocalBranches):
    """`LocalBranches` whose forwards are recorded at their first call and replayed afterwards.

    Parameters
    ----------
    recorder
        CUDA graphs by default.

    Raises
    ------
    ValueError
        Without the savings that make shapes and addresses static.
    """

    def __init__(
        self, dit: CausalDiT, savings: Savings, batch: int = 1, recorder: Recorder | None = None
    ) -> None:
        if not (savings.static_cache and savings.cache_context):
            raise ValueError("graphs need the savings static_cache and cache_context")
        super().__init__(dit, savings, batch)
        self._recorder = recorder or CudaRecorder(dit.patch_embedding.weight.device)
        self._variants: dict[tuple[Any, ...], _Variant] = {}
        self._fixed: dict[str, Context] = {}

    @property
    def recorded(self) -> int:
        """Variants recorded so far."""
        return len(self._variants)

    def _context(self, which: str) -> Context:
        """The context in the buffers that the recordings read."""
        known = which in self._contexts
        new = super()._context(which)
        if known:
            return new
        fixed = self._fixed.setdefault(which, new)
        if fixed is not new:
            for buffer, tensor in zip(_tensors(fixed), _tensors(new)):
                buffer.copy_(tensor)
        self._contexts[which] = fixed
        return fixed

    def _prefill(self, which: str, cache: Cache, p: Prefill) -> None:
        context, length = self._context(which), cache.length
        inputs = (p.x, p.y, p.t)
        key = ("prefill", which, length, p.start_frame, *_shapes(inputs))

        def forward(buffers: tuple[torch.Tensor | None, ...]) -> Outputs:
            cache.length = length  # recording runs it several times
            x, y, t = buffers
            assert x is not None and t is not None
            self.dit.prefill(x, y, t, p.start_frame, context, cache, want_output=False)
            return ()

        self._run(key, inputs, forward)
        # A replay moves keys and values but no Python number.
        cache.length = length
        cache.advance(p.x.shape[2] * self.dit.config.frame_seqlen)

    def _denoise(
        self, which: str, cache: Cache, s: Step, video: bool
    ) -> tuple[torch.Tensor | None, torch.Tensor]:
        context, length = self._context(which), cache.length
        inputs = (s.x, s.y, s.t, s.action, s.t_action, s.state)
        key = ("denoise", which, length, video, s.start_frame, *_shapes(inputs))

        def forward(buffers: tuple[torch.Tensor | None, ...]) -> Outputs:
            given: Any = (*buffers, s.start_frame, context, cache, video)
            return self.dit.denoise(*given)

        velocity, action = self._run(key, inputs, forward)
        assert action is not None
        return velocity, action

    def _run(
        self,
        key: tuple[Any, ...],
        inputs: tuple[torch.Tensor | None, ...],
        forward: Callable[[tuple[torch.Tensor | None, ...]], Outputs],
    ) -> Outputs:
        variant = self._variants.get(key)
        if variant is None:
            variant = _Variant(inputs)
            fixed = variant.inputs
            variant.replay = self._recorder.record(lambda: forward(fixed))
            self._variants[key] = variant
        return variant.run(inputs)


def _tensors(context: Context) -> list[torch.Tensor]:
    assert context.kv is not None
    return [context.text, context.image, *(t for layer in context.kv for t in layer)]


def _shapes(inputs: tuple[torch.Tensor | None, ...]) -> tuple[Any, ...]:
    return tuple(None if t is None else tuple(t.shape) for t in inputs)
