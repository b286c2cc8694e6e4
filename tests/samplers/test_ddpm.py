"""Ancestral sampling."""

import pytest
import torch
from torch import Tensor

from lavie.errors import SpecError
from lavie.samplers import DDPMSpec, LinearScheduleSpec

SCHEDULE = LinearScheduleSpec().build()
START = torch.randn(1, 4, 2, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def denoise(noisy: Tensor, sigma: float) -> Tensor:
    return (noisy / (1 + sigma**2)).sin()


def test_fifty_steps_visit_the_timesteps_of_the_official_script() -> None:
    assert DDPMSpec().build(SCHEDULE).timesteps == list(range(980, -1, -20))


def test_offset_one_visits_the_timesteps_of_later_schedulers() -> None:
    assert DDPMSpec(offset=1).build(SCHEDULE).timesteps == list(range(981, 0, -20))


def test_a_step_is_the_textbook_posterior() -> None:
    drawn = torch.randn(START.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    sampler = DDPMSpec(num_inference_steps=10).build(SCHEDULE)
    first = next(sampler.steps(denoise, START, lambda step, shape: drawn))
    alpha, alpha_next = (SCHEDULE.alphas_cumprod[timestep].item() for timestep in (900, 800))
    ratio, clean = alpha / alpha_next, denoise(START / alpha**0.5, sampler.sigmas[0].item())
    mean = (alpha_next**0.5 * (1 - ratio) * clean + ratio**0.5 * (1 - alpha_next) * START) / (1 - alpha)
    variance = (1 - ratio) * (1 - alpha_next) / (1 - alpha)
    torch.testing.assert_close(first.noisy * alpha_next**0.5, mean + variance**0.5 * drawn)


def test_large_variance_is_that_of_the_forward_step() -> None:
    def spread(**options: str) -> Tensor:
        sampler = DDPMSpec(num_inference_steps=10, **options).build(SCHEDULE)
        quiet, loud = (
            next(sampler.steps(denoise, START, lambda step, shape, by=by: by * torch.ones(shape))) for by in (0, 1)
        )
        return (loud.noisy - quiet.noisy).mean()

    alpha, alpha_next = SCHEDULE.alphas_cumprod[900].item(), SCHEDULE.alphas_cumprod[800].item()
    large, small = spread(variance="fixed_large"), spread(variance="fixed_small")
    assert large.item() == pytest.approx(((1 - alpha / alpha_next) / alpha_next) ** 0.5)
    assert small.item() == pytest.approx(large.item() * ((1 - alpha_next) / (1 - alpha)) ** 0.5)


@pytest.mark.parametrize(
    ("offset", "variance", "draws"),
    [(0, "fixed_small", 4), (0, "fixed_large", 4), (1, "fixed_small", 4), (1, "fixed_large", 5)],
)
def test_noise_is_left_out_of_a_step_from_timestep_zero(offset: int, variance: str, draws: int) -> None:
    drawn: list[int] = []

    def noise(step: int, shape: tuple[int, ...]) -> Tensor:
        drawn.append(step)
        return torch.zeros(shape)

    sampler = DDPMSpec(num_inference_steps=5, offset=offset, variance=variance).build(SCHEDULE)
    sampler.sample(denoise, START, noise)
    assert drawn == list(range(draws))


def test_clip_bounds_every_prediction() -> None:
    sampler = DDPMSpec(num_inference_steps=5, clip=0.25).build(SCHEDULE)
    for step in sampler.steps(lambda noisy, sigma: noisy, START, lambda step, shape: torch.zeros(shape)):
        assert step.denoised.abs().max() == 0.25
    assert step.noisy.abs().max() <= 0.25


def test_more_steps_than_timesteps_are_refused() -> None:
    with pytest.raises(SpecError, match="num_inference_steps: 50 steps do not fit into 10 timesteps"):
        DDPMSpec().build(LinearScheduleSpec(num_train_timesteps=10).build())
