"""Sampling of latent consistency models."""

import pytest
import torch
from torch import Tensor

from lavie.errors import SpecError
from lavie.samplers import LCMSpec, LinearScheduleSpec

SCHEDULE = LinearScheduleSpec().build()
START = torch.randn(1, 4, 2, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_four_steps_are_chosen_among_the_fifty_of_distillation() -> None:
    sampler = LCMSpec().build(SCHEDULE)
    assert sampler.timesteps == [999, 759, 499, 259]
    assert all((timestep + 1) % 20 == 0 for timestep in sampler.timesteps)


def test_each_step_noises_the_denoised_latent_anew() -> None:
    latent = START.sin()

    def noise(step: int, shape: tuple[int, ...]) -> Tensor:
        return torch.full(shape, step + 1.0, dtype=torch.float64)

    sampler = LCMSpec().build(SCHEDULE)
    for step in sampler.steps(lambda noisy, sigma: latent, START, noise):
        spread = step.sigma_next * (step.index + 1) if step.index < 3 else 0.0
        torch.testing.assert_close(step.noisy, step.denoised + spread)
        torch.testing.assert_close(step.denoised, latent, rtol=1e-5, atol=1e-5)


def test_more_steps_than_were_distilled_are_refused() -> None:
    with pytest.raises(SpecError, match="51 steps cannot be chosen among 50; raise original_inference_steps"):
        LCMSpec(num_inference_steps=51).build(SCHEDULE)
