"""Quantised linears: arithmetic, what is replaced, loading, saving, moving."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from wam_ros.wam.checkpoint.load import load
from wam_ros.wam.checkpoint.save import save
from wam_ros.wam.config import WamConfig
from wam_ros.wam.dit import CausalDiT
from wam_ros.wam.head import apply_savings
from wam_ros.wam.precision import PrecisionError, apply_precision, describe, prepare
from wam_ros.wam.precision import fp8 as fp8_module
from wam_ros.wam.precision.fp8 import Fp8Linear, best_kernel, product, quantize_rows
from wam_ros.wam.precision.int8 import Int8Linear
from wam_ros.wam.precision.nvfp4 import Nvfp4Unavailable
from wam_ros.wam.precision.quantized import QuantizedLinear
from wam_ros.wam.precision.sensitive import KEPT, reason_to_keep
from wam_ros.wam.presets import preset, tiny
from wam_ros.wam.savings import Savings

from .conftest import random_networks


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.double() - b.double()).norm() / b.double().norm())


def linear(inputs: int, outputs: int, seed: int = 0) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(inputs, outputs).requires_grad_(False)


def model(config: WamConfig | None = None) -> CausalDiT:
    return random_networks(config or tiny()).dit


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 40),
    inputs=st.sampled_from([16, 48, 160]),
    outputs=st.sampled_from([16, 64]),
    scale=st.sampled_from([1e-6, 1.0, 1e4]),
    seed=st.integers(0, 1000),
)
def test_all_kernels_give_the_same_product(
    rows: int, inputs: int, outputs: int, scale: float, seed: int
) -> None:
    g = torch.Generator().manual_seed(seed)
    x, sx = quantize_rows(scale * torch.randn(rows, inputs, generator=g))
    w, sw = quantize_rows(torch.randn(outputs, inputs, generator=g))
    bias = scale * torch.randn(outputs, generator=g)
    exact = (x.double() * sx.double()) @ (w.double() * sw.double()).t() + bias.double()
    ran = set()
    for kernel in fp8_module.KERNELS:
        try:
            y = product(kernel, x, sx, w, sw, bias, torch.float32)
        except RuntimeError:
            continue  # this build of torch lacks it
        ran.add(kernel)
        assert relative(y, exact) < 1e-6, kernel
    assert "reference" in ran


def test_the_reference_serves_where_no_kernel_does(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_options: object) -> None:
        raise RuntimeError("no such kernel")

    layer, x = linear(64, 32), torch.randn(5, 64)
    kernel = Fp8Linear.of(layer)(x)
    best_kernel.cache_clear()
    monkeypatch.setattr(torch, "_scaled_mm", refuse)
    try:
        reference = Fp8Linear.of(layer)
        assert reference.kernel == "reference"
        assert relative(reference(x), kernel) < 1e-6
    finally:
        best_kernel.cache_clear()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), power=st.integers(-20, 20))
def test_quantised_rows_stay_within_half_a_step(seed: int, power: int) -> None:
    x = torch.randn(4, 32, generator=torch.Generator().manual_seed(seed)) * 2.0**power
    values, scale = quantize_rows(x)
    error = (values.float() * scale - x).abs()
    # Three mantissa bits: half a step is 1/16 of the value, and 2^-10 at the subnormal end.
    assert bool((error <= x.abs() / 16 * 1.001 + scale * 2.0**-10).all())
    assert torch.isfinite(values.float()).all()
    assert torch.equal(values.float().abs().amax(-1), torch.full((4,), 448.0))


def test_rows_of_zeros_and_single_outliers() -> None:
    x = torch.zeros(3, 32)
    x[1, 4] = 1e30
    y = Fp8Linear.of(linear(32, 16))(x)
    assert torch.isfinite(y).all()
    assert torch.equal(y[0], y[2])


@pytest.mark.parametrize(("kind", "limit"), [(Fp8Linear, 0.05), (Int8Linear, 0.01)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_quantised_linear_is_near_its_original(
    kind: type[QuantizedLinear], limit: float, dtype: torch.dtype
) -> None:
    layer, x = linear(256, 128), torch.randn(2, 7, 256)
    y = kind.of(layer)(x.to(dtype))
    assert y.dtype == dtype
    assert y.shape == (2, 7, 128)
    error = relative(y, layer(x))
    assert 1e-4 < error < limit


@pytest.mark.parametrize("kind", [Fp8Linear, Int8Linear])
def test_joined_rows_are_those_of_the_parts(kind: type[QuantizedLinear]) -> None:
    layers = [linear(64, 32, seed) for seed in range(3)]
    parts = [kind.of(x) for x in layers]
    both = kind.join(parts)
    x = torch.randn(5, 64)
    assert torch.equal(both(x), torch.cat([p(x) for p in parts], -1))
    back = both.separate(3)
    for a, b in zip(parts, back):
        assert torch.equal(a.dequantized(), b.dequantized())
        assert torch.equal(a.bias, b.bias)


def test_what_is_replaced_and_what_is_kept() -> None:
    dit = model()
    report = apply_precision(dit, "fp8")
    per_block = 4 + 6 + 2
    assert len(report.replaced) == 2 * per_block
    assert all(x.name.startswith("blocks.") for x in report.replaced)
    kept = {x.name: x.kept for x in report.kept}
    for name in ("head.head", "time_projection.1", "text_embedding.0", "img_emb.proj.1"):
        assert kept[name]
    for module in (dit.patch_embedding, dit.head.head, dit.blocks[0].norm3):
        assert module.weight.dtype == torch.bfloat16
    assert dit.blocks[0].modulation.dtype == torch.bfloat16
    assert dit.blocks[0].ffn[0].weight.dtype == torch.float8_e4m3fn
    assert report.bytes < report.bytes_bf16
    assert report.bytes_bf16 == 2 * sum(p.numel() for p in model().parameters())


@pytest.mark.parametrize(("size", "bf16_gb", "fp8_gb"), [("14b", 33.0, 16.8), ("5b", 11.2, 5.7)])
def test_bytes_of_the_released_sizes(size: str, bf16_gb: float, fp8_gb: float) -> None:
    with torch.device("meta"):
        dit = CausalDiT(preset(size).dit).to(torch.bfloat16)
    prepare(dit, "fp8")
    report = describe(dit)
    assert report.bytes_bf16 / 1e9 == pytest.approx(bf16_gb, abs=0.05)
    assert report.bytes / 1e9 == pytest.approx(fp8_gb, abs=0.1)


def test_every_reason_names_a_layer_of_the_model() -> None:
    import re

    names = [n for n, _ in model().named_parameters()]
    for pattern, reason in KEPT:
        assert reason
        assert any(re.match(pattern, n) for n in names), pattern


def test_widths_that_kernels_do_not_take_are_kept() -> None:
    assert "multiples of 16" in str(reason_to_keep("blocks.0.ffn.0", 40, 64))
    assert reason_to_keep("blocks.0.ffn.0", 48, 64) is None
    report = apply_precision(model(tiny(dim=24)), "fp8")
    assert not report.replaced
    assert "24 x" in str(next(x for x in report.kept if "ffn.0" in x.name).kept)


def test_quantising_before_and_after_fusing_is_the_same() -> None:
    first, second = model(), model()
    apply_precision(first, "fp8")
    apply_savings(first, Savings.only("fused_qkv"))
    apply_savings(second, Savings.only("fused_qkv"))
    apply_precision(second, "fp8")
    a, b = first.blocks[1].self_attn.qkv, second.blocks[1].self_attn.qkv
    assert torch.equal(a.weight.float(), b.weight.float())
    assert torch.equal(a.weight_scale, b.weight_scale)
    apply_savings(first, Savings.none())
    assert isinstance(first.blocks[1].self_attn.q, Fp8Linear)


@pytest.mark.parametrize("precision", ["fp8", "int8"])
def test_a_checkpoint_loads_straight_to_the_precision(
    tmp_path: Path, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny()
    networks = random_networks(config)
    save(tmp_path, config, networks)
    largest = [0]
    plain = QuantizedLinear.place_weight

    def watch(self: QuantizedLinear, weight: torch.Tensor) -> None:
        largest[0] += 1
        plain(self, weight)
        assert self.weight.dtype == self.storage

    monkeypatch.setattr(QuantizedLinear, "place_weight", watch)
    streamed = load(tmp_path, dtype=torch.float32, precision=precision).networks.dit
    monkeypatch.undo()
    at_once = networks.dit
    report = apply_precision(at_once, precision, torch.float32)
    assert largest[0] == len(report.replaced) > 0
    ours, theirs = streamed.state_dict(), at_once.state_dict()
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert tensor.dtype == theirs[name].dtype
        assert torch.equal(tensor.float(), theirs[name].float()), name
    assert describe(streamed).bytes == report.bytes


@pytest.mark.parametrize("precision", ["fp8", "int8"])
def test_a_quantised_state_survives_a_file(tmp_path: Path, precision: str) -> None:
    first, second = model(), random_networks(tiny(), seed=5).dit
    apply_precision(first, precision)
    save_file(first.state_dict(), tmp_path / "dit.safetensors")
    apply_precision(second, precision)
    second.load_state_dict(load_file(tmp_path / "dit.safetensors"))
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor.float(), second.state_dict()[name].float()), name


def test_the_released_layout_takes_no_quantised_weights(tmp_path: Path) -> None:
    networks = random_networks(tiny())
    apply_precision(networks.dit, "fp8")
    with pytest.raises(ValueError, match=r"weight_scale is no tensor of the layout"):
        save(tmp_path / "out", tiny(), networks)


def test_an_unquantised_state_loads_into_a_quantised_model() -> None:
    source = model()
    state = copy.deepcopy(source.state_dict())
    target = random_networks(tiny(), seed=5).dit
    apply_precision(target, "fp8")
    apply_precision(source, "fp8")
    target.load_state_dict(state)
    a, b = source.blocks[0].ffn[0], target.blocks[0].ffn[0]
    assert torch.equal(a.dequantized(), b.dequantized())


def test_moving_to_another_dtype_keeps_the_quantisation() -> None:
    dit = model()
    apply_precision(dit, "fp8", torch.float32)
    before = dit.blocks[0].ffn[0].dequantized()
    dit.to(torch.bfloat16)
    layer = dit.blocks[0].ffn[0]
    assert layer.weight.dtype == torch.float8_e4m3fn
    assert layer.weight_scale.dtype == torch.float32
    assert layer.bias.dtype == torch.bfloat16
    assert torch.equal(layer.dequantized(), before)


def test_errors_name_the_thing() -> None:
    dit = model()
    with pytest.raises(PrecisionError, match=r"'fp7' is unknown; there are bf16, fp8"):
        apply_precision(dit, "fp7")
    with pytest.raises(Nvfp4Unavailable, match=r"Blackwell.*torchao"):
        apply_precision(dit, "nvfp4")
    apply_precision(dit, "fp8")
    with pytest.raises(PrecisionError, match=r"blocks\.0\.self_attn\.q is fp8 already"):
        apply_precision(dit, "int8")
    with pytest.raises(ValueError, match=r"\(3, 64\), expected \(64, 64\)"):
        dit.blocks[0].self_attn.q.place_weight(torch.zeros(3, 64))
