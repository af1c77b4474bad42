"""The sampler, the training schedule and step skipping by property."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wam_ros.wam.flow_match import add_noise, training_schedule, velocity_target
from wam_ros.wam.skipping import DynamicSkip, StaticSkip, static_steps
from wam_ros.wam.unipc import UniPC, make_schedule


@given(
    steps=st.integers(1, 24),
    final=st.sampled_from([0.0, 0.3, 0.65, 0.8]),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_a_perfect_model_is_sampled_exactly(steps: int, final: float, seed: int) -> None:
    """With the true velocity the sample stays on the line from noise to data at every level."""
    torch.manual_seed(seed)
    x, noise = torch.randn(2, 1, 3, 4, dtype=torch.float64)
    schedule = make_schedule(steps, final_noise=final)
    sampler = UniPC(schedule)
    first = schedule.sigmas[0].double()
    sample = (1 - first) * x + first * noise
    for level in schedule.sigmas[1:].double():
        sample = sampler.step(noise - x, sample)
        torch.testing.assert_close(sample, (1 - level) * x + level * noise, atol=1e-5, rtol=1e-5)


@given(steps=st.integers(1, 40), final=st.floats(0.0, 0.95))
def test_levels_fall_to_the_final_one(steps: int, final: float) -> None:
    schedule = make_schedule(steps, final_noise=final)
    assert (schedule.sigmas.diff() < 0).all()
    assert abs(float(schedule.sigmas[-1]) - final) < 1e-6
    assert len(schedule.timesteps) == steps
    assert all(0 <= t <= 999 for t in schedule.timesteps)


def test_sampler_says_when_it_is_used_up() -> None:
    sampler = UniPC(make_schedule(1))
    sampler.step(torch.zeros(1), torch.zeros(1))
    with pytest.raises(RuntimeError, match="call reset"):
        sampler.step(torch.zeros(1), torch.zeros(1))
    with pytest.raises(ValueError, match="steps is 0"):
        make_schedule(0)
    with pytest.raises(ValueError, match=r"final_noise is 1\.5"):
        make_schedule(4, final_noise=1.5)


def test_noising_inverts_by_the_velocity() -> None:
    schedule = training_schedule()
    assert float(schedule.weights.sum()) == pytest.approx(1000, rel=1e-5)
    x, noise = torch.randn(2, 3, 5, 4)
    index = torch.tensor([[0, 400, 999, 10, 700]] * 3)
    noisy = add_noise(schedule, x, noise, index)
    back = noisy - schedule.sigmas[index][..., None] * velocity_target(x, noise)
    torch.testing.assert_close(back, x, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("count", [5, 6, 7, 8])
def test_masks_run_as_many_steps_as_they_say(count: int) -> None:
    assert len(static_steps(16, count)) == count
    skip = StaticSkip(16, count)
    last = static_steps(16, count)[-1]
    assert [i for i in range(16) if skip.runs(i)] == list(static_steps(16, count))
    assert [skip.is_last(i) for i in (last - 1, last)] == [False, True]


def test_other_numbers_of_steps_run_them_all() -> None:
    assert static_steps(16, 16) == tuple(range(16))
    assert static_steps(4, 8) == tuple(range(4))


def _ran(velocities: list[torch.Tensor]) -> list[int]:
    skip, ran = DynamicSkip(len(velocities)), []
    for i, velocity in enumerate(velocities):
        if skip.runs(i):
            ran.append(i)
            skip.computed(velocity)
    return ran


def test_dynamic_rule_skips_while_velocities_agree() -> None:
    same = torch.ones(1, 8)
    assert _ran([same] * 16) == [0, 1, 6, 11]
    turning = [torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])] * 8
    assert _ran(turning) == list(range(16))
    # A cosine of 0.94 skips two; then the last two computed ones lie three angles apart.
    angle = torch.arccos(torch.tensor(0.94))
    close = [torch.stack((torch.cos(i * angle), torch.sin(i * angle)))[None] for i in range(10)]
    assert _ran(close) == [0, 1, 4, 5, 8, 9]
