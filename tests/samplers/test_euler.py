"""Euler's method."""

import pytest
import torch
from torch import Tensor

from lavie.samplers import EulerSpec, FlowScheduleSpec, LinearScheduleSpec

SCHEDULE = LinearScheduleSpec().build()
START = torch.randn(1, 4, 2, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def never(step: int, shape: tuple[int, ...]) -> Tensor:
    raise AssertionError("noise was drawn")


def test_fifty_steps_start_at_the_last_timestep_and_end_at_zero_noise() -> None:
    sampler = EulerSpec().build(SCHEDULE)
    assert sampler.timesteps[0] == 999
    assert sampler.timesteps[-1] == 0
    assert sampler.sigmas[0].item() == pytest.approx(157.407, abs=1e-3)
    assert sampler.sigmas[-1] == 0
    assert sampler.initial_scale == sampler.sigmas[0]


def test_leading_spacing_starts_with_a_network_input_of_unit_variance() -> None:
    sampler = EulerSpec(spacing="leading", offset=1).build(SCHEDULE)
    assert sampler.initial_scale == pytest.approx((1 + sampler.sigmas[0].item() ** 2) ** 0.5)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_grid_is_even_in_t_before_the_shift(shift: float) -> None:
    sampler = EulerSpec(num_inference_steps=4).build(FlowScheduleSpec(shift=shift).build())
    t = [timestep / 1000 for timestep in sampler.timesteps]
    unshifted = [each / (shift - (shift - 1) * each) for each in t]
    assert unshifted == pytest.approx([1, 0.75, 0.5, 0.25], abs=2e-4)
    assert sampler.sigmas[-1] == 0


def test_a_straight_flow_is_solved_in_one_step() -> None:
    """With one latent for all noise the paths are straight, so that one step is exact."""
    schedule = FlowScheduleSpec().build()
    latent = torch.full_like(START, 0.3)
    found = EulerSpec(num_inference_steps=1).build(schedule).sample(lambda noisy, sigma: latent, START, never)
    torch.testing.assert_close(found, latent)


def test_network_input_of_a_flow_starts_as_the_noise_itself() -> None:
    schedule = FlowScheduleSpec(shift=3.0).build()
    sampler = EulerSpec(num_inference_steps=4).build(schedule)
    noisy = sampler.start(START) * schedule.scales(sampler.sigmas[0].item())[0]
    torch.testing.assert_close(noisy, START)
