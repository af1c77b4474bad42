"""Recorded forwards and compiled regions give what plain ones give."""

from __future__ import annotations

import dataclasses
import shutil

import pytest
import torch

from wam_ros.wam import synthetic
from wam_ros.wam.attention import attention_backend
from wam_ros.wam.branches import LocalBranches
from wam_ros.wam.compiling import compile_blocks, release_blocks
from wam_ros.wam.graphs import CudaRecorder, EagerRecorder, GraphedBranches
from wam_ros.wam.head import CallOptions, PolicyHead
from wam_ros.wam.precision import apply_precision
from wam_ros.wam.savings import Savings

CONFIG = synthetic.config_of("tiny")
UNBATCHED = dataclasses.replace(Savings.all(), batched_cfg=False)


class CountingRecorder(EagerRecorder):
    """Runs everything thrice at the recording, as warm-up does."""

    def record(self, run):  # type: ignore[no-untyped-def]
        run()
        run()
        return super().record(run)


def head(savings: Savings, graphs: bool = False, precision: str = "") -> PolicyHead:
    dit = synthetic.random_dit("tiny")
    if precision:
        apply_precision(dit, precision, torch.float32)
    text, image, vae = synthetic.random_encoders(CONFIG, torch.float32)
    branches = GraphedBranches(dit, savings, recorder=CountingRecorder()) if graphs else None
    negative = synthetic.prompt(CONFIG, 1)
    return PolicyHead(CONFIG, dit, text, image, vae, negative, savings, branches)


def actions(policy: PolicyHead, calls: int, options: CallOptions) -> list[torch.Tensor]:
    found = []
    for k in range(calls):
        prompt = synthetic.prompt(CONFIG, 2 if k < 7 else 3)
        images = synthetic.clip(CONFIG, 8 if k else 1, 8 * k)
        result = policy.call(images, *prompt, synthetic.state(CONFIG, k), options)
        found.append(result.action)
        if result.video is not None:
            found.append(result.video)
    return found


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("want_video", [False, True])
def test_recorded_forwards_equal_plain_ones(batched: bool, want_video: bool) -> None:
    savings = dataclasses.replace(UNBATCHED, batched_cfg=batched)
    options = CallOptions(4, want_video=want_video)
    recorded = head(savings, graphs=True)
    plain = actions(head(savings), 9, options)
    for a, b in zip(plain, actions(recorded, 9, options)):
        assert torch.equal(a, b)
    # Two windows and a new instruction: variants are recorded in the first window only.
    branches = recorded.branches
    assert isinstance(branches, GraphedBranches)
    count = branches.recorded
    actions(recorded, 4, options)
    assert branches.recorded == count


def test_one_recording_per_cache_length() -> None:
    policy = head(UNBATCHED, graphs=True)
    actions(policy, 8, CallOptions(1, want_video=False))
    assert isinstance(policy.branches, GraphedBranches)
    assert policy.branches.recorded == 2 * 4  # prefill and denoising at 1, 3, 5 and 7 frames


def test_graphs_ask_for_what_they_need() -> None:
    dit = synthetic.random_dit("tiny")
    with pytest.raises(ValueError, match="static_cache and cache_context"):
        GraphedBranches(dit, Savings.only("static_cache"))
    with pytest.raises(RuntimeError, match="need a CUDA device, the model is on 'cpu'"):
        GraphedBranches(dit, UNBATCHED)


def check_compiled(precision: str, backend: str, attention: str, limit: float) -> None:
    from torch._dynamo.utils import counters

    options = CallOptions(1, want_video=True)
    plain = actions(head(UNBATCHED, precision=precision), 5, options)
    policy = head(UNBATCHED, precision=precision)
    policy.dit.attend = attention_backend(attention)
    compile_blocks(policy.dit, "default", backend)
    torch._dynamo.reset()
    counters.clear()
    ours = actions(policy, 2, options)
    regions = counters["stats"]["unique_graphs"]
    assert regions > 0
    policy.restart()
    ours = actions(policy, 5, options)
    # Frames 5 and 7 and a new window ran the code compiled for frames 1 and 3.
    assert counters["stats"]["unique_graphs"] == regions
    for a, b in zip(plain, ours):
        assert float((a - b).norm() / a.norm()) < limit
    release_blocks(policy.dit)
    policy.dit.attend = attention_backend("sdpa")
    policy.restart()
    for a, b in zip(plain, actions(policy, 5, options)):
        assert torch.equal(a, b)


@pytest.mark.parametrize(("precision", "attention"), [("", "sdpa"), ("fp8", "math")])
def test_regions_are_compiled_once_for_all_cache_lengths(precision: str, attention: str) -> None:
    # This backend traces and transforms as the real one does, and generates no code.
    check_compiled(precision, "aot_eager", attention, 0.02 if precision else 1e-5)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="the compiler needs g++")
@pytest.mark.parametrize("precision", ["", "fp8"])
def test_compiled_code_agrees(precision: str) -> None:
    # Rounding differs, and a value at the edge of two E4M3 values may fall to the other side.
    check_compiled(precision, "inductor", "sdpa", 0.02 if precision else 1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_cuda_graphs_equal_eager_on_the_gpu() -> None:
    text, image, vae = synthetic.random_encoders(CONFIG, torch.bfloat16)
    found = []
    for graphs in (False, True):
        dit = synthetic.random_dit("tiny", device="cuda", dtype="bfloat16")
        device = torch.device("cuda")
        branches = (
            GraphedBranches(dit, UNBATCHED, recorder=CudaRecorder(device))
            if graphs
            else LocalBranches(dit, UNBATCHED)
        )
        negative = synthetic.prompt(CONFIG, 1)
        policy = PolicyHead(CONFIG, dit, text, image, vae, negative, UNBATCHED, branches)
        found.append(actions(policy, 9, CallOptions(4)))
    for a, b in zip(*found):
        assert torch.equal(a, b)
