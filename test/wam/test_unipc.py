"""Samplers, schedules and skip rules, by property."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wam_ros.wam.flow_match import add_noise, training_schedule, velocity_target
from wam_ros.wam.skipping import DynamicSkip, StaticSkip, static_steps
from wam_ros.wam.unipc import UniPC, make_schedule

STEPS = st.integers(1, 24)
FINAL = st.sampled_from([0.0, 0.2, 0.8])


def sample(steps: int, x: torch.Tensor, velocity, final: float = 0.0):  # type: ignore[no-untyped-def]
    """Run a sampler on a velocity field given as a function of sample and level."""
    sampler = UniPC(make_schedule(steps, final_noise=final))
    for sigma in sampler.schedule.sigmas[:-1]:
        x = sampler.step(velocity(x, sigma), x)
    return x


@given(STEPS, st.floats(0.5, 12), FINAL)
def test_levels_fall_from_noise_to_the_end(steps: int, shift: float, final: float) -> None:
    schedule = make_schedule(steps, shift, final)
    sigmas = schedule.sigmas
    assert len(sigmas) == steps + 1
    assert len(schedule.timesteps) == steps
    assert bool((sigmas.diff() < 0).all())
    assert float(sigmas[0]) < 1.0
    assert float(sigmas[-1]) == pytest.approx(final, abs=1e-6)
    levels = (1000 * sigmas[:-1]).tolist()
    # A level within rounding of an integer may be truncated either way.
    assert all(math.floor(s - 1e-3) <= t <= s + 1e-3 for t, s in zip(schedule.timesteps, levels))


@pytest.mark.parametrize(
    ("steps", "timesteps"),
    [
        (1, (999,)),
        (4, (999, 937, 833, 624)),
        (
            16,
            (999, 986, 972, 955, 937, 916, 892, 865, 833, 795, 749, 694, 624, 535, 416, 249),
        ),
    ],
)
def test_timesteps_are_those_of_the_release(steps: int, timesteps: tuple[int, ...]) -> None:
    assert make_schedule(steps).timesteps == timesteps


@settings(max_examples=30, deadline=None)
@given(STEPS, st.integers(0, 2**16))
def test_a_velocity_that_points_at_one_target_is_sampled_exactly(steps: int, seed: int) -> None:
    # With v = (x - target) / sigma every prediction of the clean sample is the target itself.
    generator = torch.Generator().manual_seed(seed)
    target = torch.randn(3, 4, generator=generator)
    out = sample(steps, torch.randn(3, 4, generator=generator), lambda x, s: (x - target) / s)
    assert torch.allclose(out, target, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 16), st.floats(-3, 3), st.integers(0, 2**16))
def test_the_sampler_is_linear_in_sample_and_velocities(
    steps: int, factor: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, v = (torch.randn(2, steps, 5, generator=generator) for _ in range(2))

    def run(start: torch.Tensor, velocities: torch.Tensor) -> torch.Tensor:
        sampler = UniPC(make_schedule(steps))
        for velocity in velocities:
            start = sampler.step(velocity, start)
        return start

    apart = run(x[0, 0], v[0]) + factor * run(x[1, 0], v[1])
    together = run(x[0, 0] + factor * x[1, 0], v[0] + factor * v[1])
    assert torch.allclose(together, apart, atol=2e-4, rtol=1e-4)


def test_more_steps_come_closer_to_the_true_flow() -> None:
    # Data N(0, 0.3^2): x_t is normal with variance (1 - s)^2 0.09 + s^2, so the flow is a scaling.
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)

    def variance(s: torch.Tensor) -> torch.Tensor:
        return (1 - s) ** 2 * 0.09 + s**2

    def velocity(x: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        s = s.double()
        return x * (s - (1 - s) * 0.09) / variance(s)

    true = x * 0.3 / variance(make_schedule(1).sigmas[0].double()).sqrt()
    errors = [float((sample(n, x, velocity) - true).abs().max()) for n in (4, 16, 64, 256)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 5e-3 < errors[1]


def test_one_more_step_than_there_are_is_refused() -> None:
    sampler = UniPC(make_schedule(2))
    x = torch.zeros(3)
    for _ in range(2):
        x = sampler.step(x, x)
    with pytest.raises(RuntimeError, match="all 2 steps are done"):
        sampler.step(x, x)
    sampler.reset()
    sampler.step(x, x)


@pytest.mark.parametrize(("steps", "final"), [(0, 0.0), (4, 1.0), (4, -0.1)])
def test_schedules_that_make_no_sense_are_refused(steps: int, final: float) -> None:
    with pytest.raises(ValueError, match=r"steps is 0|final_noise is"):
        make_schedule(steps, final_noise=final)


@given(st.integers(0, 999), st.integers(0, 2**16))
def test_noising_and_its_velocity_lead_to_both_ends(index: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, noise = torch.randn(2, 1, 3, 4, dtype=torch.float64, generator=generator)
    schedule = training_schedule()
    level = float(schedule.sigmas[index])
    at = add_noise(schedule, x, noise, torch.tensor([index]))
    v = velocity_target(x, noise)
    assert torch.allclose(at - level * v, x)
    assert torch.allclose(at + (1 - level) * v, noise)


def test_training_weights_average_one_and_favour_the_middle() -> None:
    schedule = training_schedule()
    assert float(schedule.weights.mean()) == pytest.approx(1.0, rel=1e-5)
    assert float(schedule.timesteps[schedule.weights.argmax()]) == pytest.approx(500, abs=2)
    assert float(schedule.weights.min()) >= 0.0


# ---------------------------------------------------------------------- skipping


@given(STEPS, st.integers(1, 20))
def test_static_masks_start_with_the_first_step(steps: int, dit_steps: int) -> None:
    run = static_steps(steps, dit_steps)
    assert run[0] == 0
    assert list(run) == sorted(set(run))
    assert run[-1] < steps
    assert len(run) == (dit_steps if steps == 16 and dit_steps in (5, 6, 7, 8) else steps)
    skip = StaticSkip(steps, dit_steps)
    assert [i for i in range(steps) if skip.runs(i)] == list(run)
    assert [i for i in range(steps) if skip.runs(i) and skip.is_last(i)] == [run[-1]]


def _dynamic(similarities: list[float], steps: int) -> list[int]:
    """Steps that run when computed velocity k has this cosine with the one before."""
    skip, angle, ran = DynamicSkip(steps), 0.0, []
    for i in range(steps):
        if not skip.runs(i):
            continue
        if ran:
            angle += math.acos(similarities[len(ran) - 1])
        skip.computed(torch.tensor([[math.cos(angle), math.sin(angle)]]))
        ran.append(i)
    return ran


def test_dynamic_rule_on_known_similarities() -> None:
    assert _dynamic([0.0] * 16, 16) == list(range(16))
    # Above 0.95: four skipped, one always run, four skipped, ...
    assert _dynamic([0.99] * 16, 16) == [0, 1, 6, 11]
    # Above 0.93: two skipped.
    assert _dynamic([0.94] * 16, 16) == [0, 1, 4, 7, 10, 13]
    assert _dynamic([0.5, 0.94, 0.5, 0.99, 0.1] + [0.1] * 11, 16)[:7] == [0, 1, 2, 5, 6, 11, 12]


@given(st.lists(st.floats(-1, 1), min_size=24, max_size=24), STEPS)
def test_dynamic_rule_never_starves(similarities: list[float], steps: int) -> None:
    ran = _dynamic(similarities, steps)
    assert ran[: min(2, steps)] == [0, 1][: min(2, steps)]
    gaps = [b - a - 1 for a, b in zip(ran, [*ran[1:], steps])]
    assert all(gap in (0, 2, 4) for gap in gaps[:-1])
    assert gaps[-1] <= 4
