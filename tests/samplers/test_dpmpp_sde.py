"""DPM-Solver++ 2M on the stochastic process."""

import math

import torch
from torch import Tensor

from lavie.samplers import DPMPP2MSDESpec, DPMPP2MSpec, EulerAncestralSpec, LinearScheduleSpec

SCHEDULE = LinearScheduleSpec().build()
SHAPE = (1, 4, 2, 4, 4)
START = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def denoise(noisy: Tensor, sigma: float) -> Tensor:
    return (noisy / (1 + sigma**2)).sin()


def noise(step: int, shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(step), dtype=torch.float64)


def never(step: int, shape: tuple[int, ...]) -> Tensor:
    raise AssertionError("noise was drawn")


def test_without_noise_it_is_the_deterministic_solver() -> None:
    quiet = DPMPP2MSDESpec(num_inference_steps=8, eta=0.0).build(SCHEDULE)
    plain = DPMPP2MSpec(num_inference_steps=8).build(SCHEDULE)
    torch.testing.assert_close(quiet.sample(denoise, START, never), plain.sample(denoise, START, never))


def test_its_first_step_with_all_noise_is_ancestral() -> None:
    """Before there is a step to extrapolate from, it draws from the posterior of the forward process."""
    loud = DPMPP2MSDESpec(num_inference_steps=8, spacing="karras").build(SCHEDULE)
    ancestral = EulerAncestralSpec(num_inference_steps=8, spacing="karras").build(SCHEDULE)
    start = START * ancestral.initial_scale / loud.initial_scale
    one, other = next(loud.steps(denoise, start, noise)), next(ancestral.steps(denoise, START, noise))
    torch.testing.assert_close(one.noisy, other.noisy)


def test_noise_is_drawn_at_every_step_but_the_last() -> None:
    drawn: list[int] = []

    def count(step: int, shape: tuple[int, ...]) -> Tensor:
        drawn.append(step)
        return noise(step, shape)

    DPMPP2MSDESpec(num_inference_steps=5).build(SCHEDULE).sample(denoise, START, count)
    assert drawn == [0, 1, 2, 3]


def test_more_eta_forgets_more_of_the_start() -> None:
    def kept(eta: float) -> float:
        sampler = DPMPP2MSDESpec(num_inference_steps=20, eta=eta).build(SCHEDULE)
        found = sampler.sample(lambda noisy, sigma: noisy / (1 + sigma**2), START, noise)
        return torch.corrcoef(torch.stack([found.flatten(), START.flatten()]))[0, 1].item()

    assert kept(0.0) > 0.999
    assert kept(0.0) > kept(0.5) > kept(1.0)


def test_steps_are_those_of_the_exponential_integrator() -> None:
    """Written out in λ = -log σ and its steps h (arXiv 2211.01095, appendix A), with a midpoint for the slope."""
    sampler, eta = DPMPP2MSDESpec(num_inference_steps=6, eta=0.7).build(SCHEDULE), 0.7
    x, old, last = START * sampler.initial_scale, None, 0.0
    lambdas = (-sampler.sigmas.log()).tolist()
    for step in sampler.steps(denoise, START, noise):
        if step.index < 5:
            h = lambdas[step.index + 1] - lambdas[step.index]
            new = denoise(x, step.sigma)
            x = math.exp(-(1 + eta) * h) * x - math.expm1(-(1 + eta) * h) * new
            if old is not None:
                x = x - 0.5 * math.expm1(-(1 + eta) * h) * (h / last) * (new - old)
            x = x + step.sigma_next * (-math.expm1(-2 * eta * h)) ** 0.5 * noise(step.index, SHAPE)
            old, last = new, h
            torch.testing.assert_close(step.noisy, x)
