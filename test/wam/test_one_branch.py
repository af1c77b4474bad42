"""A guidance scale of one, and contexts after a restart."""

from __future__ import annotations

import torch

from wam_ros.wam import synthetic
from wam_ros.wam.head import CallOptions, PolicyHead
from wam_ros.wam.savings import Savings

CONFIG = synthetic.config_of("tiny")


def head(savings: Savings) -> PolicyHead:
    text, image, vae = synthetic.random_encoders(CONFIG, torch.float32)
    dit, negative = synthetic.random_dit("tiny"), synthetic.prompt(CONFIG, 1)
    return PolicyHead(CONFIG, dit, text, image, vae, negative, savings)


def inputs(seed: int = 0, frames: int = 1) -> tuple[torch.Tensor, ...]:
    images = synthetic.clip(CONFIG, frames, seed=seed)
    return images, *synthetic.prompt(CONFIG, 2), synthetic.state(CONFIG)


def test_a_scale_of_one_runs_one_branch_and_still_denoises_the_video() -> None:
    # The plain path runs both branches and mixes them with weights one and zero.
    plain, lean = head(Savings.none()), head(Savings.only("dead_uncond"))
    for frames in (1, 8):
        given, options = inputs(frames=frames), CallOptions(4, guidance=1.0)
        a, b = plain.call(*given, options), lean.call(*given, options)
        assert b.denoises == (4, 0)
        assert b.prefills == (1, 0)
        assert a.video is not None
        assert b.video is not None
        torch.testing.assert_close(a.action, b.action, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(a.video, b.video, rtol=1e-4, atol=1e-5)


def test_a_restart_brings_the_new_picture() -> None:
    policy = head(Savings.all())
    first = policy.call(*inputs(seed=0))
    policy.restart()
    again = policy.call(*inputs(seed=1))
    expected = head(Savings.all()).call(*inputs(seed=1))
    assert not torch.equal(first.action, again.action)
    assert torch.equal(again.action, expected.action)
