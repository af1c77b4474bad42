"""Checkpoints in the released layout: written, read back, merged, and refused with a reason."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from wam_ros.wam.checkpoint.errors import SHOWN, CheckpointError
from wam_ros.wam.checkpoint.experiment import EmbodimentSetup, Experiment
from wam_ros.wam.checkpoint.layout import PREFIXES
from wam_ros.wam.checkpoint.load import Networks, load
from wam_ros.wam.checkpoint.metadata import read_metadata
from wam_ros.wam.checkpoint.save import save, stored_tensors
from wam_ros.wam.checkpoint.survey import survey
from wam_ros.wam.config import WamConfig
from wam_ros.wam.config_io import write_config
from wam_ros.wam.presets import tiny

from .conftest import random_networks

SMALL_SHARDS = 200_000
LORA = "action_head.model.base_model.model."


def _state(config: WamConfig, networks: Networks) -> dict[str, Tensor]:
    return dict(stored_tensors(config, networks))


@pytest.fixture(scope="module")
def model() -> tuple[WamConfig, Networks]:
    config = tiny()
    return config, random_networks(config)


@pytest.fixture
def folder(tmp_path: Path, model: tuple[WamConfig, Networks]) -> Path:
    """A sound checkpoint in one file."""
    save(tmp_path / "ckpt", *model)
    return tmp_path / "ckpt"


def _rewrite(folder: Path, change) -> None:  # type: ignore[no-untyped-def]
    """Read the weights of a single-file checkpoint, change them, write them back."""
    path = folder / "model.safetensors"
    state = load_file(path)
    change(state)
    path.unlink()
    save_file(state, path)


@pytest.mark.parametrize("shard_bytes", [10**9, SMALL_SHARDS])
def test_round_trip(
    tmp_path: Path, tiny_model: tuple[WamConfig, Networks], golden: Path, shard_bytes: int
) -> None:
    config, networks = tiny_model
    metadata = read_metadata(golden / "metadata.json")
    setup = EmbodimentSetup(("a",), ("b",), ("b", "c"), {"action": {"c": "min_max"}}, 15.0)
    experiment = Experiment({"yam": setup}, True, ("b",), False)
    files = save(tmp_path, config, networks, metadata, experiment, shard_bytes=shard_bytes)
    if shard_bytes == SMALL_SHARDS:
        assert len(files) > 3
        assert files[0].name == f"model-00001-of-{len(files):05d}.safetensors"
        index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
        assert set(index["weight_map"].values()) == {f.name for f in files}
        assert index["metadata"]["total_size"] == sum(
            t.numel() * t.element_size() for f in files for t in load_file(f).values()
        )
    else:
        assert [f.name for f in files] == ["model.safetensors"]
    loaded = load(tmp_path, dtype=torch.float32)
    assert loaded.config == config
    expected, got = _state(config, networks), _state(loaded.config, loaded.networks)
    assert got.keys() == expected.keys()
    assert all(torch.equal(got[n], expected[n]) for n in expected)
    assert loaded.metadata is not None
    assert loaded.metadata.keys() == metadata.keys()
    assert loaded.experiment is not None
    assert loaded.experiment.relative == ("b",)
    read = loaded.experiment.embodiments["yam"]
    assert (read.video, read.state, read.action, read.fps) == (("a",), ("b",), ("b", "c"), 15.0)
    assert (read.mode("action", "b"), read.mode("action", "c")) == ("q99", "min_max")


def test_loaded_networks_compute_the_same(
    tmp_path: Path, tiny_model: tuple[WamConfig, Networks]
) -> None:
    config, networks = tiny_model
    save(tmp_path, config, networks)
    ours = load(tmp_path, dtype=torch.float32).networks
    ids = torch.randint(1, config.t5.vocab, (1, config.dit.text_len))
    mask = torch.ones_like(ids)
    frame = torch.rand(1, 3, 40, 50) * 2 - 1
    video = torch.rand(1, 3, 5, config.head.video_height, config.head.video_width)
    text, image = networks.text(ids, mask), networks.image.encode(frame)
    assert torch.equal(ours.text(ids, mask), text)
    assert torch.equal(ours.image.encode(frame), image)
    assert torch.equal(ours.vae.encode(video), networks.vae.encode(video))
    context, expected = ours.dit.embed_context(text, image), networks.dit.embed_context(text, image)
    assert torch.equal(context.text, expected.text)


def test_precision_is_converted_while_loading(folder: Path) -> None:
    networks = load(folder, dtype=torch.bfloat16).networks
    for module in networks.by_component().values():
        assert {p.dtype for p in module.parameters()} == {torch.bfloat16}
        assert not any(b.is_meta for b in module.buffers())


def test_the_loaded_weights_are_not_the_file(folder: Path) -> None:
    """Mapped pages would die with the file; the weights must not."""
    networks = load(folder, dtype=torch.float32).networks
    before = networks.dit.patch_embedding.weight.clone()
    path = folder / "model.safetensors"
    path.write_bytes(b"\0" * path.stat().st_size)
    assert torch.equal(networks.dit.patch_embedding.weight, before)


def test_missing_extra_and_misshapen_are_named_and_the_list_is_capped(folder: Path) -> None:
    def damage(state: dict[str, Tensor]) -> None:
        for name in [n for n in state if ".blocks.1.cross_attn." in n and ".model." in n]:
            del state[name]
        state["action_head.model.head.modulation"] = torch.zeros(1, 2, 7)
        state["action_head.model.freqs_buffer"] = torch.zeros(3)

    _rewrite(folder, damage)
    with pytest.raises(CheckpointError) as caught:
        load(folder)
    text = str(caught.value)
    missing = re.search(r"missing, (\d+) of (\d+)", text)
    assert missing is not None
    assert int(missing[1]) == 15
    assert f"... and {15 - SHOWN} more" in text
    assert "action_head.model.blocks.1.cross_attn.k.weight" in text
    assert "head.modulation: stored [1, 2, 7], expected [1, 2, 64]" in text
    assert "extra, not part of this model, 1:\n    action_head.model.freqs_buffer" in text
    assert "different models" in text


def test_tensors_that_inference_never_uses_may_be_absent_or_surplus(folder: Path) -> None:
    visual = PREFIXES["image"]

    def change(state: dict[str, Tensor]) -> None:
        for name in [
            n for n in state if n.startswith(f"{visual}post_norm") or n == f"{visual}head"
        ]:
            del state[name]
        state["action_head.image_encoder.model.log_scale"] = torch.zeros(1)
        state["action_head.image_encoder.model.textual.token_embedding.weight"] = torch.zeros(2)

    _rewrite(folder, change)
    assert load(folder).networks.image.unused.keys() == {
        f"transformer.2.{n}.{p}"
        for n in ("norm1", "norm2", "attn.to_qkv", "attn.proj", "mlp.0", "mlp.2")
        for p in ("weight", "bias")
    }


@pytest.mark.parametrize("keep", [0, 5, 100, -1000])
def test_truncated_file_is_refused(folder: Path, keep: int) -> None:
    path = folder / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:keep])
    with pytest.raises(CheckpointError, match=r"model\.safetensors.*cut off") as caught:
        load(folder)
    if keep < 0:
        assert f"promises {len(content)}" in str(caught.value)


def test_shard_missing_or_of_another_checkpoint(
    tmp_path: Path, model: tuple[WamConfig, Networks]
) -> None:
    files = save(tmp_path, *model, shard_bytes=SMALL_SHARDS)
    content = files[1].read_bytes()
    files[1].unlink()
    with pytest.raises(CheckpointError, match=f"1 of {len(files)} shards are missing") as caught:
        load(tmp_path)
    assert files[1].name in str(caught.value)
    files[1].write_bytes(files[0].read_bytes())
    with pytest.raises(CheckpointError, match="shards and index are of different"):
        load(tmp_path)
    files[1].write_bytes(content)
    (tmp_path / "model.safetensors.index.json").unlink()
    with pytest.raises(CheckpointError, match=r"shards but no model\.safetensors\.index\.json"):
        load(tmp_path)


def test_foreign_checkpoint(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    save_file({"backbone.layer.weight": torch.zeros(3)}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="another kind of checkpoint") as caught:
        load(folder)
    assert "backbone.layer.weight" in str(caught.value)


def test_weights_of_another_size_than_the_config(folder: Path) -> None:
    write_config(tiny(dim=128), folder)
    with pytest.raises(CheckpointError, match="different models"):
        load(folder)


def test_folder_without_config_or_weights(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        load(tmp_path / "nowhere")
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="no weights; expected model"):
        load(folder)
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load(folder)


def test_saving_refuses_a_folder_in_use(folder: Path, model: tuple[WamConfig, Networks]) -> None:
    with pytest.raises(FileExistsError, match="already holds weights"):
        save(folder, *model)


# ------------------------------------------------------------------------------------------- LoRA


def _adapters(config: WamConfig, rank: int = 4) -> dict[str, Tensor]:
    """Factors for every target of the release, as a LoRA run stores them."""
    generator = torch.Generator().manual_seed(5)
    d, f = config.dit.dim, config.dit.ffn_dim
    targets = {f"{a}.{x}": (d, d) for a in ("self_attn", "cross_attn") for x in "qkvo"}
    targets |= {"ffn.0": (f, d), "ffn.2": (d, f)}
    out = {}
    for i in range(config.dit.num_layers):
        for name, (rows, columns) in targets.items():
            stem = f"{LORA}blocks.{i}.{name}"
            down = torch.randn((rank, columns), generator=generator)
            out[f"{stem}.lora_A.default.weight"] = down
            up = torch.randn((rows, rank), generator=generator)
            out[f"{stem}.lora_B.default.weight"] = up
    return out


def _lora_config(rank: int = 4, alpha: int = 8) -> WamConfig:
    from dataclasses import replace

    config = tiny()
    head = replace(config.head, lora_rank=rank, lora_alpha=alpha, train_architecture="lora")
    return replace(config, head=head)


def _write_lora_only(folder: Path, base: dict[str, Tensor]) -> tuple[Path, dict[str, Tensor]]:
    """Adapters and the trained embodiment parts, as `save_lora_only` leaves them."""
    config = _lora_config()
    folder.mkdir()
    write_config(config, folder)
    stored = _adapters(config)
    for name, tensor in base.items():
        short = name.removeprefix(PREFIXES["dit"])
        if short.startswith(("state_encoder", "action_encoder", "action_decoder")):
            stored[LORA + short] = tensor + 1.0
    save_file(stored, folder / "model.safetensors")
    return folder, stored


def test_lora_only_merges_onto_its_base(
    tmp_path: Path, folder: Path, model: tuple[WamConfig, Networks]
) -> None:
    base = _state(*model)
    lora, stored = _write_lora_only(tmp_path / "lora", base)
    loaded = load(lora, base=folder, dtype=torch.float32)
    got = _state(loaded.config, loaded.networks)
    for name, tensor in base.items():
        short = name.removeprefix(PREFIXES["dit"])
        stem = f"{LORA}{short.removesuffix('.weight')}.lora_"
        if f"{stem}A.default.weight" in stored:
            down, up = stored[f"{stem}A.default.weight"], stored[f"{stem}B.default.weight"]
            expected = tensor + 2.0 * up @ down  # alpha 8, rank 4
        else:
            expected = stored.get(LORA + short, tensor)
        torch.testing.assert_close(got[name], expected)


def test_lora_only_without_base_says_what_it_needs(
    tmp_path: Path, model: tuple[WamConfig, Networks]
) -> None:
    lora, _ = _write_lora_only(tmp_path / "lora", _state(*model))
    data = json.loads((lora / "config.json").read_text())
    dit = data["action_head_cfg"]["config"]["diffusion_model_cfg"]
    dit["diffusion_model_pretrained_path"] = "/train/DreamZero-AgiBot"
    (lora / "config.json").write_text(json.dumps(data))
    with pytest.raises(CheckpointError, match="LoRA adapters only") as caught:
        load(lora)
    assert "--base" in str(caught.value)
    assert "/train/DreamZero-AgiBot" in str(caught.value)


def test_full_weights_of_a_lora_run_are_read_through_their_wrappers(
    tmp_path: Path, model: tuple[WamConfig, Networks]
) -> None:
    """The stock loader drops these keys without a word."""
    config, base = _lora_config(), _state(*model)
    stored = _adapters(config)
    wrapped = {n.partition(".lora_")[0] for n in stored}
    for name, tensor in base.items():
        short = name.removeprefix(PREFIXES["dit"])
        if short == name:
            stored[name] = tensor
            continue
        stem, _, leaf = (LORA + short).rpartition(".")
        stored[f"{stem}.base_layer.{leaf}" if stem in wrapped else f"{stem}.{leaf}"] = tensor
    tmp_path.mkdir(exist_ok=True)
    write_config(config, tmp_path)
    save_file({k: v.contiguous() for k, v in stored.items()}, tmp_path / "model.safetensors")
    found = survey(tmp_path)
    assert found.ok
    assert found.lora == "with base"
    loaded = load(tmp_path, dtype=torch.float32)
    got = loaded.networks.dit.blocks[1].ffn[0]
    name = f"{LORA}blocks.1.ffn.0.lora_"
    delta = 2.0 * stored[f"{name}B.default.weight"] @ stored[f"{name}A.default.weight"]
    expected = base["action_head.model.blocks.1.ffn.0.weight"] + delta
    torch.testing.assert_close(got.weight, expected)
    assert torch.equal(got.bias, base["action_head.model.blocks.1.ffn.0.bias"])


def test_base_without_the_image_branch_is_refused(
    tmp_path: Path, folder: Path, model: tuple[WamConfig, Networks]
) -> None:
    """The stock loader leaves these at random values (5B on raw Wan2.2)."""

    def drop(state: dict[str, Tensor]) -> None:
        for name in [n for n in state if "img_emb" in n or "k_img" in n or "v_img" in n]:
            del state[name]

    _rewrite(folder, drop)
    lora, _ = _write_lora_only(tmp_path / "lora", _state(*model))
    with pytest.raises(CheckpointError, match="are the image branch, which the base lacks"):
        load(lora, base=folder)


def test_half_an_adapter_and_one_of_another_width(
    tmp_path: Path, folder: Path, model: tuple[WamConfig, Networks]
) -> None:
    lora, stored = _write_lora_only(tmp_path / "lora", _state(*model))
    name = f"{LORA}blocks.0.self_attn.q.lora_B.default.weight"
    full = stored.pop(name)
    (lora / "model.safetensors").unlink()
    save_file(stored, lora / "model.safetensors")
    with pytest.raises(CheckpointError, match="only one of lora_A and lora_B"):
        load(lora, base=folder)
    stored[name] = torch.cat((full, full))
    (lora / "model.safetensors").unlink()
    save_file(stored, lora / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"LoRA factors \[128, 4\] x \[4, 64\]"):
        load(lora, base=folder)


# --------------------------------------------------------------------------------------- raw Wan


def _write_wan(folder: Path, base: dict[str, Tensor]) -> None:
    """A folder as the Wan repositories have it: bare names, encoders in .pth files."""
    folder.mkdir()

    def part(prefix: str) -> dict[str, Tensor]:
        return {n.removeprefix(prefix): t for n, t in base.items() if n.startswith(prefix)}

    trained = ("state_encoder", "action_encoder", "action_decoder")
    dit = {n: t for n, t in part(PREFIXES["dit"]).items() if not n.startswith(trained)}
    names = sorted(dit)
    half = len(names) // 2
    for i, some in enumerate((names[:half], names[half:]), start=1):
        path = folder / f"diffusion_pytorch_model-{i:05d}-of-00002.safetensors"
        save_file({n: dit[n].contiguous() for n in some}, path)
    torch.save(part(PREFIXES["text"]), folder / "models_t5_umt5-xxl-enc-bf16.pth")
    image = part("action_head.image_encoder.model.") | {"log_scale": torch.zeros(())}
    torch.save(image, folder / "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth")
    old = folder / "Wan2.1_VAE.pth"
    torch.save(part(PREFIXES["vae"]), old, _use_new_zipfile_serialization=False)


def test_lora_only_on_raw_wan_weights(
    tmp_path: Path, folder: Path, model: tuple[WamConfig, Networks]
) -> None:
    base = _state(*model)
    _write_wan(tmp_path / "wan", base)
    lora, _ = _write_lora_only(tmp_path / "lora", base)
    on_wan = load(lora, base=tmp_path / "wan", dtype=torch.float32)
    on_full = load(lora, base=folder, dtype=torch.float32)
    got, expected = (_state(x.config, x.networks) for x in (on_wan, on_full))
    assert all(torch.equal(got[n], expected[n]) for n in expected)


def test_pth_with_code_in_it_is_refused(tmp_path: Path, model: tuple[WamConfig, Networks]) -> None:
    class Evil:
        def __reduce__(self):  # type: ignore[no-untyped-def]
            return (Path.touch, (tmp_path / "ran",))

    base = _state(*model)
    _write_wan(tmp_path / "wan", base)
    lora, _ = _write_lora_only(tmp_path / "lora", base)
    torch.save({"conv1.weight": Evil()}, tmp_path / "wan" / "Wan2.1_VAE.pth")
    with pytest.raises(CheckpointError, match=r"Wan2\.1_VAE\.pth: not loadable as plain weights"):
        load(lora, base=tmp_path / "wan")
    assert not (tmp_path / "ran").exists()
