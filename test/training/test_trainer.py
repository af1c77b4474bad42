"""The loop: what is stopped goes on as if it had not been stopped."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from wam_ros.training.trainer import Losses, Plan, Trainer, digest

PLAN = Plan(steps=30, rate=1e-2, warm_up=5, log_every=10, save_every=10, ema=0.9)


def _make(folder: Path, plan: Plan, stop_at: int | None = None) -> tuple[nn.Module, Trainer]:
    torch.manual_seed(3)
    model = nn.Linear(4, 2)

    def loss(step: int) -> Losses:
        if step == stop_at:
            raise KeyboardInterrupt
        g = torch.Generator().manual_seed(step)
        x = torch.randn(16, 4, generator=g)
        return {"loss": (model(x) - x[:, :2]).square().mean()}

    return model, Trainer("toy", [model], loss, plan, folder, say=lambda _: None)


def test_a_stopped_run_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    whole, trainer = _make(tmp_path / "whole", PLAN)
    trainer.run()
    _, first = _make(tmp_path / "parts", PLAN, stop_at=20)
    with pytest.raises(KeyboardInterrupt):
        first.run()
    rest, second = _make(tmp_path / "parts", PLAN)
    second.run()
    assert second.step == 30
    for a, b in zip(whole.parameters(), rest.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    for a, b in zip(trainer.average, second.average, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_the_loss_falls_and_the_curve_is_written(tmp_path: Path) -> None:
    _, trainer = _make(tmp_path, replace(PLAN, steps=300))
    trainer.run()
    lines = [json.loads(line) for line in (tmp_path / "toy.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(10, 301, 10))
    assert lines[-1]["loss"] < 0.1 * lines[0]["loss"]


def test_a_finished_run_does_nothing(tmp_path: Path) -> None:
    _, trainer = _make(tmp_path, PLAN)
    trainer.run()
    _, again = _make(tmp_path, PLAN, stop_at=0)
    again.run()
    assert again.step == 30


def test_the_average_follows_the_weights(tmp_path: Path) -> None:
    model, trainer = _make(tmp_path, replace(PLAN, steps=400, floor=0.0))
    trainer.run()
    last = [p.detach().clone() for p in model.parameters()]
    trainer.use_average()
    for p, before in zip(model.parameters(), last, strict=True):
        assert 0 < (p - before).abs().max() < 0.05


def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path) -> None:
    model = nn.Linear(1, 1)
    trainer = Trainer(
        "toy", [model], lambda _: {"loss": model.weight.sum() * float("nan")}, PLAN, tmp_path
    )
    with pytest.raises(FloatingPointError, match="toy: loss nan at step 0"):
        trainer.run()


def test_a_state_of_another_model_is_refused(tmp_path: Path) -> None:
    _, trainer = _make(tmp_path, PLAN)
    trainer.run()
    other = Trainer("toy", [nn.Linear(5, 2)], lambda _: {}, PLAN, tmp_path)
    with pytest.raises(ValueError, match="another shape"):
        other.run()


def test_nothing_to_train(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing to train"):
        Trainer("toy", [nn.Linear(1, 1).requires_grad_(False)], lambda _: {}, PLAN, tmp_path)


def test_a_gradient_that_is_no_number_is_not_saved(tmp_path: Path) -> None:
    model, trainer = _make(tmp_path, PLAN)
    plain = trainer._loss

    def breaks(step: int) -> Losses:
        weight = next(model.parameters())
        more = (weight * 0.0).abs().sqrt().sum() if step == 19 else 0.0  # its slope at 0 is nan
        return {"loss": plain(step)["loss"] + more}

    trainer._loss = breaks
    with pytest.raises(FloatingPointError, match=r"toy: gradient nan at step 19"):
        trainer.run()
    saved = torch.load(tmp_path / "toy.pt", weights_only=True)
    assert saved["step"] == 10 and all(p.isfinite().all() for p in saved["parameters"])


def test_a_stage_begins_anew_when_what_it_builds_on_has_changed(tmp_path: Path) -> None:
    below = nn.Linear(2, 2)
    steps: list[int] = []

    def train() -> list[int]:
        steps.clear()
        model, _ = _make(tmp_path, PLAN)

        def loss(step: int) -> Losses:
            steps.append(step)
            return {"loss": model(torch.ones(1, 4)).square().mean()}

        trainer = Trainer("toy", [model], loss, PLAN, tmp_path, upstream=digest(below))
        trainer.run()
        return steps

    assert train() == list(range(30))
    assert train() == []
    nn.init.ones_(below.weight)
    assert train() == list(range(30))
