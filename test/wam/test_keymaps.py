"""The table of stored tensors against our modules and the published sizes, on meta tensors."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from wam_ros.wam.checkpoint.layout import slots
from wam_ros.wam.checkpoint.load import build
from wam_ros.wam.config import WamConfig
from wam_ros.wam.keymaps import clip, t5, to_module, to_stored, vae
from wam_ros.wam.presets import preset, tiny
from wam_ros.wam.stored import StoredNetwork

CONFIGS = {
    "14b": preset("14b"),
    "5b": preset("5b"),
    "tiny 2.1": tiny(),
    "tiny 2.2": tiny(kind="wan2.2"),
}


def _sizes(config: WamConfig) -> dict[str, int]:
    total: dict[str, int] = {}
    for slot in slots(config).values():
        total[slot.component] = total.get(slot.component, 0) + slot.size
    return total


@pytest.mark.parametrize("name", CONFIGS)
def test_table_fills_every_parameter_of_every_network_once(name: str) -> None:
    config = CONFIGS[name]
    networks = build(config)
    for component, module in networks.by_component().items():
        inner: nn.Module = module.net if isinstance(module, StoredNetwork) else module
        wanted = {n: tuple(p.shape) for n, p in inner.named_parameters()}
        filled: dict[str, tuple[int, ...]] = {}
        for slot in (s for s in slots(config).values() if s.component == component):
            parts = len(slot.entry.targets)
            for target in slot.entry.targets:
                assert target not in filled
                filled[target] = (slot.entry.shape[0] // parts, *slot.entry.shape[1:])
        assert filled.keys() == wanted.keys()
        for target, shape in filled.items():
            assert math.prod(shape) == math.prod(wanted[target]), target
            if component != "image":  # class and position embedding are stored with extra axes
                assert shape == wanted[target]


@pytest.mark.parametrize(
    ("name", "dit"), [("14b", 16.484e9), ("5b", 5.607e9)]
)  # SPEC of the release, section 1
def test_parameter_counts_are_the_published_ones(name: str, dit: float) -> None:
    sizes = _sizes(CONFIGS[name])
    assert sizes["dit"] == pytest.approx(dit, rel=1e-4)
    assert sizes["text"] == pytest.approx(5.68e9, rel=1e-3)
    assert sizes["image"] == pytest.approx(632e6, rel=1e-3)
    table = slots(CONFIGS["14b"])

    def millions(prefix: str) -> float:
        return sum(s.size for n, s in table.items() if n.startswith(prefix)) / 1e6

    assert millions("action_head.model.state_encoder") == pytest.approx(5.31, abs=0.01)
    assert millions("action_head.model.action_encoder") == pytest.approx(78.82, abs=0.01)
    assert millions("action_head.model.action_decoder") == pytest.approx(5.28, abs=0.01)
    assert millions("action_head.vae.model.encoder") == pytest.approx(53.6, abs=0.1)


def test_names_and_shapes_of_the_14b_as_published() -> None:
    table = slots(CONFIGS["14b"])
    d, f = 5120, 13824
    expected = {
        "model.patch_embedding.weight": (d, 36, 1, 2, 2),
        "model.text_embedding.0.weight": (d, 4096),
        "model.text_embedding.2.bias": (d,),
        "model.time_embedding.0.weight": (d, 256),
        "model.time_projection.1.weight": (6 * d, d),
        "model.blocks.39.modulation": (1, 6, d),
        "model.blocks.0.self_attn.norm_q.weight": (d,),
        "model.blocks.0.self_attn.q.bias": (d,),
        "model.blocks.0.norm3.bias": (d,),
        "model.blocks.0.cross_attn.k_img.weight": (d, d),
        "model.blocks.0.cross_attn.norm_k_img.weight": (d,),
        "model.blocks.0.ffn.0.weight": (f, d),
        "model.blocks.0.ffn.2.weight": (d, f),
        "model.head.modulation": (1, 2, d),
        "model.head.head.weight": (64, d),
        "model.img_emb.proj.0.weight": (1280,),
        "model.img_emb.proj.1.weight": (1280, 1280),
        "model.img_emb.proj.3.weight": (d, 1280),
        "model.img_emb.proj.4.bias": (d,),
        "model.state_encoder.layer1.W": (1, 64, 1024),
        "model.state_encoder.layer2.b": (1, d),
        "model.action_encoder.W1.W": (1, 32, d),
        "model.action_encoder.W2.W": (1, 2 * d, d),
        "model.action_decoder.layer1.W": (1, d, 1024),
        "model.action_decoder.layer2.W": (1, 1024, 32),
        "text_encoder.token_embedding.weight": (256384, 4096),
        "text_encoder.blocks.23.pos_embedding.embedding.weight": (32, 64),
        "text_encoder.blocks.0.ffn.gate.0.weight": (10240, 4096),
        "text_encoder.norm.weight": (4096,),
        "image_encoder.model.visual.patch_embedding.weight": (1280, 3, 14, 14),
        "image_encoder.model.visual.cls_embedding": (1, 1, 1280),
        "image_encoder.model.visual.transformer.31.attn.to_qkv.weight": (3840, 1280),
        "image_encoder.model.visual.head": (1280, 1024),
        "vae.model.conv1.weight": (32, 32, 1, 1, 1),
        "vae.model.encoder.downsamples.2.resample.1.weight": (96, 96, 3, 3),
        "vae.model.decoder.upsamples.14.residual.6.weight": (96, 96, 3, 3, 3),
    }
    for name, shape in expected.items():
        assert table[f"action_head.{name}"].entry.shape == shape
    assert "action_head.model.blocks.40.modulation" not in table
    assert not any("norm1" in n or "norm2" in n for n in table if ".model.blocks." in n)
    five = slots(CONFIGS["5b"])
    assert five["action_head.model.patch_embedding.weight"].entry.shape == (3072, 48, 1, 2, 2)
    assert "action_head.vae.model.encoder.downsamples.0.downsamples.0.residual.0.gamma" in five


@pytest.mark.parametrize("name", ["tiny 2.1", "tiny 2.2"])
def test_names_map_there_and_back(name: str) -> None:
    config = CONFIGS[name]
    tables = (t5.entries(config.t5), clip.entries(config.clip), vae.entries(config.vae))
    for entries in tables:
        used = [e for e in entries if e.targets]
        stored = {e.name: torch.randn(e.shape) for e in used}
        back = to_stored(used, to_module(used, stored))
        assert back.keys() == stored.keys()
        assert all(torch.equal(back[n], stored[n]) for n in stored)
