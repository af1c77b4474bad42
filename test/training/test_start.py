"""The small transformer before its first step."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from wam_ros.training.start import pass_noise
from wam_ros.wam.dit import CausalDiT
from wam_ros.wam.presets import small, tiny


def _velocities(dit: CausalDiT, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """Noise of video and actions, and the velocities found for it, from random data."""
    c, g = dit.config, torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(4, *shape, generator=g)

    video, action = draw(c.in_dim, 3, 12, 20), draw(c.num_action_per_block, c.action_dim)
    context = dit.embed_context(draw(c.text_len, c.text_dim), draw(c.image_tokens, c.image_dim))
    most = torch.full((4, 3), 1000)
    with torch.no_grad():
        found_v, found_a = dit(
            video, draw(c.in_dim, 3, 12, 20), None, most, action, most[:, :1],
            draw(1, c.max_state_dim), context, lean=True,
        )  # fmt: skip
    return video[:, :, 1:], found_v, action, found_a


@pytest.mark.parametrize("seed", range(3))
def test_pure_noise_comes_out_as_it_went_in(seed: int) -> None:
    torch.manual_seed(seed)
    dit = CausalDiT(small().dit)
    plain_v, plain_a = _relative(dit)
    assert plain_v > 0.9
    assert plain_a > 0.9
    pass_noise(dit)
    video, action = _relative(dit)
    assert video < 0.4, (video, action)
    assert action < 0.3


def _relative(dit: CausalDiT) -> tuple[float, float]:
    video, found_v, action, found_a = _velocities(dit)
    return (
        float((found_v - video).norm() / video.norm()),
        float((found_a - action).norm() / action.norm()),
    )


def test_a_token_too_narrow_is_refused() -> None:
    config = replace(small().dit, patch_size=(1, 6, 4))
    with pytest.raises(ValueError, match="128 channels do not carry patches of"):
        pass_noise(CausalDiT(config))
    with pytest.raises(ValueError, match="do not carry"):
        pass_noise(CausalDiT(tiny(kind="wan2.1").dit))
