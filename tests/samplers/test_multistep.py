"""DPM-Solver++ and UniPC: what their extrapolation and correction are exact for, and how often they call."""

import math

import pytest
import torch
from torch import Tensor

from lavie.samplers import DPMPP2MSpec, HeunSpec, LCMSpec, LinearScheduleSpec, SamplerSpec, UniPCSpec
from lavie.samplers.dpmpp import extrapolate
from lavie.samplers.unipc import advance

SCHEDULE = LinearScheduleSpec().build()
START = torch.randn(1, 4, 2, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def noise(step: int, shape: tuple[int, ...]) -> Tensor:
    return torch.zeros(shape, dtype=torch.float64)


def line(sigma: float) -> Tensor:
    """Return a denoised latent that is a straight line in log sigma."""
    return START * math.log(sigma)


@pytest.mark.parametrize(("spec", "calls"), [(HeunSpec, 11), (DPMPP2MSpec, 6), (UniPCSpec, 6), (LCMSpec, 6)])
def test_number_of_network_calls(spec: type[SamplerSpec], calls: int) -> None:
    sigmas: list[float] = []

    def denoise(noisy: Tensor, sigma: float) -> Tensor:
        sigmas.append(sigma)
        return noisy / (1 + sigma**2)

    spec(num_inference_steps=6).build(SCHEDULE).sample(denoise, START, noise)
    assert len(sigmas) == calls


def test_extrapolation_reads_the_line_half_a_step_ahead() -> None:
    middle = math.sqrt(3.0 * 1.0)
    torch.testing.assert_close(extrapolate(line(3.0), 3.0, 1.0, 7.0, line(7.0)), line(middle))


def test_a_step_to_zero_noise_is_not_extrapolated() -> None:
    assert torch.equal(extrapolate(line(3.0), 3.0, 0.0, 7.0, line(7.0)), line(3.0))


def test_correction_is_exact_for_a_parabola_in_log_sigma() -> None:
    """The exact flow is x' = σ'/σ · x + σ' · ∫ denoised(λ) e^λ dλ with λ = -log σ (arXiv 2211.01095, eq. 9)."""

    def denoised(sigma: float) -> Tensor:
        return START * (1 + math.log(sigma) + 0.5 * math.log(sigma) ** 2)

    before, sigma_from, sigma = 5.0, 3.0, 2.0
    knots = torch.linspace(-math.log(sigma_from), -math.log(sigma), 20001, dtype=torch.float64)
    weights = (1 - knots + 0.5 * knots**2) * knots.exp()
    exact = sigma / sigma_from * START + sigma * torch.trapezoid(weights, knots) * START
    past = [(before, denoised(before)), (sigma_from, denoised(sigma_from))]
    torch.testing.assert_close(advance(START, sigma, past, denoised(sigma)), exact, rtol=1e-8, atol=1e-8)


def test_first_correction_is_the_trapezoid_rule() -> None:
    decay = 1 - 2.0 / 3.0
    mean = (line(3.0) + line(2.0)) / 2
    expected = 2.0 / 3.0 * START + decay * mean
    torch.testing.assert_close(advance(START, 2.0, [(3.0, line(3.0))], line(2.0)), expected)


def test_third_order_prediction_is_exact_for_a_parabola_in_log_sigma() -> None:
    def denoised(sigma: float) -> Tensor:
        return START * (1 + math.log(sigma) + 0.5 * math.log(sigma) ** 2)

    sigma_from, sigma = 3.0, 2.0
    knots = torch.linspace(-math.log(sigma_from), -math.log(sigma), 20001, dtype=torch.float64)
    weights = (1 - knots + 0.5 * knots**2) * knots.exp()
    exact = sigma / sigma_from * START + sigma * torch.trapezoid(weights, knots) * START
    past = [(each, denoised(each)) for each in (7.0, 5.0, sigma_from)]
    torch.testing.assert_close(advance(START, sigma, past), exact, rtol=1e-8, atol=1e-8)


def test_unipc_is_more_exact_than_its_predictor() -> None:
    def error(spec: SamplerSpec) -> float:
        sampler = spec.build(SCHEDULE)
        exact = sampler.start(START) / (1 + sampler.sigmas[0].item() ** 2) ** 0.5
        found = sampler.sample(lambda noisy, sigma: noisy / (1 + sigma**2), START, noise)
        return (found - exact).abs().max().item()

    steps, spacing = 40, "karras"
    predictor = error(DPMPP2MSpec(num_inference_steps=steps, spacing=spacing))
    assert error(UniPCSpec(num_inference_steps=steps, spacing=spacing)) < predictor / 2
