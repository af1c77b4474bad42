"""The cost model against the published figures of the 14B and against PyTorch's own counter."""

from __future__ import annotations

import pytest
import torch

from wam_ros.wam import flops
from wam_ros.wam.config import preset, tiny
from wam_ros.wam.dit import CausalDiT

TERA = 1e12


@pytest.mark.parametrize(
    ("cached", "denoise", "prefill"),
    [(1, 51.6, 25.8), (3, 54.2, 50.9), (5, 56.8, 53.5), (7, 59.4, 56.0)],
)
def test_forwards_of_the_14b(cached: int, denoise: float, prefill: float) -> None:
    c = preset("14b").dit
    assert flops.forward(c, 2, cached, True).total / TERA == pytest.approx(denoise, abs=0.06)
    assert flops.prefill_of(c, cached).total / TERA == pytest.approx(prefill, abs=0.06)


@pytest.mark.parametrize(
    ("steps", "branches", "expected"),
    [(16, 2, 1869), (8, 2, 981), (5, 2, 648), (4, 2, 537), (4, 1, 269), (1, 2, 204), (1, 1, 102)],
)
def test_chunks_of_the_14b(steps: int, branches: int, expected: float) -> None:
    found = flops.chunk(preset("14b").dit, steps, branches) / TERA
    assert found == pytest.approx(expected, abs=1)


def test_encoders_of_the_14b() -> None:
    costs = flops.encoders(preset("14b"))
    assert costs.vae(9) / TERA == pytest.approx(10.6, abs=0.1)
    assert costs.vae(33) / TERA == pytest.approx(37.7, abs=0.1)
    saved = flops.saved(preset("14b"), 8, costs)
    assert saved["lazy_conditioning"] / TERA == pytest.approx(27.1, abs=0.2)


def test_model_agrees_with_a_count_of_a_real_forward() -> None:
    """On meta tensors at the 14B's size; only what the model leaves out may differ."""
    config = preset("14b").dit
    with torch.device("meta"), torch.no_grad():
        model = CausalDiT(config).to(torch.bfloat16)
        kw = {"dtype": torch.bfloat16}
        context_in = torch.zeros(1, 512, 4096, **kw), torch.zeros(1, 257, 1280, **kw)
        x, y = torch.zeros(1, 16, 2, 44, 80, **kw), torch.zeros(1, 20, 2, 44, 80, **kw)
        t, ta = torch.zeros(1, 2, dtype=torch.long), torch.zeros(1, 24, dtype=torch.long)
        action, state = torch.zeros(1, 24, 32, **kw), torch.zeros(1, 1, 64, **kw)
        cache = model.growing_cache()

        def run() -> None:
            context = model.embed_context(*context_in)
            model.denoise(x, y, t, action, ta, state, 1, context, cache)

        counted = flops.counted(run)
    assert counted == pytest.approx(flops.forward(config, 2, 0, True).total, rel=2e-3)


def test_parameters_of_the_presets() -> None:
    for name, billions in (("14b", 16.484), ("5b", 5.607)):
        with torch.device("meta"):
            model = CausalDiT(preset(name).dit)
        assert sum(p.numel() for p in model.parameters()) / 1e9 == pytest.approx(billions, abs=1e-3)


def test_window_calls() -> None:
    assert flops.window_calls(preset("14b").dit) == (1, 3, 5, 7)
    assert flops.window_calls(tiny(max_chunk_size=2).dit) == (1, 3)
