"""Implicit sampling."""

import pytest
import torch
from torch import Tensor

from lavie.samplers import DDIMSpec, DDPMSpec, EulerSpec, LinearScheduleSpec

SCHEDULE = LinearScheduleSpec().build()
START = torch.randn(1, 4, 2, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def denoise(noisy: Tensor, sigma: float) -> Tensor:
    return (noisy / (1 + sigma**2)).sin()


def noise(step: int, shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(step), dtype=torch.float64)


def test_fifty_steps_visit_the_timesteps_of_the_official_scripts() -> None:
    sampler = DDIMSpec().build(SCHEDULE)
    assert sampler.timesteps == list(range(981, 0, -20))
    assert sampler.sigmas[-1] == SCHEDULE.sigmas[0]


def test_full_eta_is_ancestral_sampling() -> None:
    implicit = DDIMSpec(num_inference_steps=8, eta=1.0, set_alpha_to_one=True).build(SCHEDULE)
    ancestral = DDPMSpec(num_inference_steps=8, offset=1).build(SCHEDULE)
    torch.testing.assert_close(implicit.sample(denoise, START, noise), ancestral.sample(denoise, START, noise))


def test_without_noise_it_is_euler_on_the_same_grid() -> None:
    implicit = DDIMSpec(num_inference_steps=8, set_alpha_to_one=True).build(SCHEDULE)
    euler = EulerSpec(num_inference_steps=8, spacing="leading", offset=1).build(SCHEDULE)
    assert torch.equal(implicit.sample(denoise, START, noise), euler.sample(denoise, START, noise))


@pytest.mark.parametrize("num_inference_steps", [7, 30, 50])
def test_a_constant_stride_changes_nothing_for_leading_spacing(num_inference_steps: int) -> None:
    grid, constant = (
        DDIMSpec(num_inference_steps=num_inference_steps, stride=stride).build(SCHEDULE)
        for stride in ("grid", "constant")
    )
    assert torch.equal(grid.sample(denoise, START, noise), constant.sample(denoise, START, noise))


def test_a_constant_stride_reads_the_network_view_again_at_the_next_step() -> None:
    sampler = DDIMSpec(num_inference_steps=4, spacing="linspace", stride="constant").build(SCHEDULE)
    seen: list[Tensor] = []

    def record(noisy: Tensor, sigma: float) -> Tensor:
        seen.append(noisy * SCHEDULE.scales(sigma)[0])
        return denoise(noisy, sigma)

    first = next(iter(list(sampler.steps(record, START, noise))))
    sigma, target = sampler.sigmas[0].item(), SCHEDULE.at(749.0)
    clean = denoise(START * sampler.initial_scale, sigma)
    moved = clean + target / sigma * (START * sampler.initial_scale - clean)
    torch.testing.assert_close(seen[1], moved * SCHEDULE.scales(target)[0])
    torch.testing.assert_close(first.noisy * SCHEDULE.scales(first.sigma_next)[0], seen[1])


def test_clip_moves_the_prediction_but_not_the_noise_direction() -> None:
    sampler = DDIMSpec(num_inference_steps=5, clip=0.25).build(SCHEDULE)
    step = next(sampler.steps(lambda noisy, sigma: noisy / 2, START, noise))
    noisy = START * sampler.initial_scale
    direction = (noisy - noisy / 2) / step.sigma
    assert step.denoised.abs().max() == 0.25
    torch.testing.assert_close(step.noisy, step.denoised + step.sigma_next * direction)


def test_latent_to_decode_is_the_network_view_of_the_last_noise_level() -> None:
    sampler = DDIMSpec(num_inference_steps=5).build(SCHEDULE)
    *_, last = sampler.steps(denoise, START, noise)
    expected = last.noisy * SCHEDULE.alphas_cumprod[0].item() ** 0.5
    torch.testing.assert_close(sampler.latent(last), expected)
    torch.testing.assert_close(sampler.sample(denoise, START, noise), expected)
