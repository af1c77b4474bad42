"""The transformer's loss, its fine-tuning by adapters, and the shapes of the large models."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from wam_ros.training.flow import Batch, FlowLoss, sampler_levels
from wam_ros.training.lora import add_lora, save_lora
from wam_ros.training.shapes import check_shapes
from wam_ros.wam.checkpoint.errors import CheckpointError
from wam_ros.wam.checkpoint.load import fresh, load
from wam_ros.wam.checkpoint.save import save
from wam_ros.wam.flow_match import velocity_target
from wam_ros.wam.presets import preset, small, tiny
from wam_ros.wam.unipc import make_schedule

CONFIG = tiny(kind="wan2.2", dim=32, action_rows=24, max_chunk_size=2)


def _batch(blocks: int = 2, size: int = 2, seed: int = 0) -> Batch:
    c, g = CONFIG.dit, torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(size, *shape, generator=g)

    rows = blocks * c.num_action_per_block
    return Batch(
        draw(c.out_dim, 1 + blocks * c.num_frame_per_block, *CONFIG.latent_size),
        draw(rows, c.action_dim),
        draw(blocks, c.max_state_dim),
        draw(c.text_len, c.text_dim),
        draw(c.image_tokens, c.image_dim),
        torch.zeros(size, 8, 8, 3, dtype=torch.uint8),
    )


class _Perfect(torch.nn.Module):
    """Knows data and noise."""

    def __init__(self, batch: Batch, seed: int) -> None:
        super().__init__()
        self.config, self._batch, self._seed = CONFIG.dit, batch, seed

    def embed_context(self, text: torch.Tensor, image: torch.Tensor) -> None:
        return None

    def forward(self, noisy, clean, y, t, action, t_action, state, context, lean):  # type: ignore[no-untyped-def]
        assert lean
        rows = action.shape[1] // t_action.shape[1]
        sigma = (t_action.repeat_interleave(rows, 1).float() / 1000)[..., None]
        # From a = (1 - s) x + s n and the known x: n - x = (a - x) / s.
        velocity = (action - self._batch.actions) / sigma.clamp_min(1e-3)
        video_sigma = (t.float() / 1000)[:, None, :, None, None]
        video = (noisy - self._batch.latents) / video_sigma.clamp_min(1e-3)
        return video[:, :, 1:], velocity


@pytest.mark.parametrize("schedule", ["shared", "decoupled"])
def test_who_knows_the_data_has_no_loss(schedule: str) -> None:
    batch = _batch()
    loss = FlowLoss(_Perfect(batch, 0), lambda _: batch, schedule)  # type: ignore[arg-type]
    out = loss(0)
    # Timesteps are whole numbers, so levels are known to 1/1000 only.
    assert out["action"] < 0.02
    assert out["video"] < 0.02
    zero = torch.zeros(1)
    assert velocity_target(zero, zero + 1) == 1


def test_levels_are_shared_or_not() -> None:
    loss = FlowLoss(_Perfect(_batch(), 0), lambda _: _batch())  # type: ignore[arg-type]
    video, action = loss._draw_levels(3, 2, 4, torch.Generator().manual_seed(0))
    assert torch.equal(video, action)
    apart = FlowLoss(_Perfect(_batch(), 0), lambda _: _batch(), "decoupled")  # type: ignore[arg-type]
    video, action = apart._draw_levels(400, 2, 4, torch.Generator().manual_seed(0))
    assert len(action[0].unique()) > 1
    # Beta(3, 1) has mean 3/4: towards noise, which is row 0.
    assert abs(video.float().mean() - 250) < 30
    with pytest.raises(ValueError, match="shared, decoupled"):
        FlowLoss(_Perfect(_batch(), 0), lambda _: _batch(), "both")  # type: ignore[arg-type]


def test_without_video_its_tokens_are_noise() -> None:
    loss = FlowLoss(_Perfect(_batch(), 0), lambda _: _batch(), video_weight=0.0)  # type: ignore[arg-type]
    video, _ = loss._draw_levels(8, 2, 4, torch.Generator().manual_seed(0))
    assert not video.any()


def test_the_transformer_learns_one_batch() -> None:
    torch.manual_seed(0)
    dit = fresh(CONFIG).dit
    plain = _batch(1, size=8)
    batch = replace(plain, actions=torch.full_like(plain.actions, 0.5))
    loss = FlowLoss(dit, lambda _: batch)
    optimizer = torch.optim.AdamW(dit.parameters(), 3e-3)
    first = np.mean([float(loss(s)["action"]) for s in range(5)])
    for step in range(100):
        optimizer.zero_grad()
        loss(step)["loss"].backward()
        optimizer.step()
    assert np.mean([float(loss(s)["action"]) for s in range(5)]) < 0.8 * first


def test_same_step_same_loss() -> None:
    torch.manual_seed(0)
    loss = FlowLoss(fresh(CONFIG).dit, lambda rng: _batch(seed=int(rng.integers(9))))
    assert loss(4)["loss"] == loss(4)["loss"]
    assert loss(4)["loss"] != loss(5)["loss"]


def test_adapters_start_as_nothing_and_load_as_trained(tmp_path: Path) -> None:
    torch.manual_seed(0)
    networks = fresh(CONFIG)
    save(tmp_path / "base", CONFIG, networks)
    dit = copy.deepcopy(networks.dit)
    batch = _batch()
    before = FlowLoss(dit, lambda _: batch)(0)["loss"]
    adapters = add_lora(dit, CONFIG)
    assert FlowLoss(dit, lambda _: batch)(0)["loss"] == before
    names = {n.rpartition(".")[2] for n in adapters}
    assert names == {"q", "k", "v", "o", "0", "2"}
    assert not any("k_img" in n for n in adapters)
    trained = [n for n, p in dit.named_parameters() if p.requires_grad]
    assert all(".down" in n or ".up" in n or "state_" in n or "action_" in n for n in trained)
    optimizer = torch.optim.AdamW([p for p in dit.parameters() if p.requires_grad], 1e-2)
    for step in range(3):
        optimizer.zero_grad()
        FlowLoss(dit, lambda _: batch)(step)["loss"].backward()
        optimizer.step()
    save_lora(tmp_path / "tuned", CONFIG, dit, adapters, tmp_path / "base")
    merged = load(tmp_path / "tuned", dtype=torch.float32).networks.dit  # it knows its base
    (tmp_path / "tuned" / "adapters.json").unlink()
    with pytest.raises(CheckpointError, match="LoRA adapters only"):
        load(tmp_path / "tuned", dtype=torch.float32)
    named = load(tmp_path / "tuned", tmp_path / "base", dtype=torch.float32).networks.dit
    assert all(torch.equal(a, b) for a, b in zip(merged.parameters(), named.parameters()))
    with torch.no_grad():
        ours, theirs = (FlowLoss(d, lambda _: batch)(7)["loss"] for d in (dit, merged))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    assert theirs != before


def test_large_models_train_in_shapes() -> None:
    report = check_shapes(preset("5b"), lora=True)
    assert report.parameters == pytest.approx(5.6e9, rel=0.02)
    assert report.tokens == 2 * 9 * 50 + 4 * 25
    assert check_shapes(small()).blocks == 2


def test_levels_are_those_that_samplers_visit() -> None:
    found = sampler_levels([1, 4])
    visits = [int(t) for t in found.timesteps]
    ours = [t for n in (1, 1, 1, 1, 4) for t in make_schedule(n).timesteps]
    assert visits == ours
    loss = FlowLoss(_Perfect(_batch(), 0), lambda _: _batch(), steps=(1, 4))  # type: ignore[arg-type]
    video, _ = loss._draw_levels(400, 2, 4, torch.Generator().manual_seed(0))
    drawn = loss._levels.timesteps[video]
    assert set(drawn.unique().tolist()) == set(map(float, make_schedule(4).timesteps))
    assert 0.5 < float((drawn == 999).float().mean()) < 0.7
    assert loss(0)["action"] < 0.02


def test_a_samplers_levels_are_shared_ones() -> None:
    with pytest.raises(ValueError, match="'decoupled' draws from all levels"):
        FlowLoss(_Perfect(_batch(), 0), lambda _: _batch(), "decoupled", steps=(4,))  # type: ignore[arg-type]
