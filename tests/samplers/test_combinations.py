"""Any solver with any schedule, prediction type and guidance: all of them together, on the Gaussian case."""

from functools import cache
from typing import get_args

import gaussian_case
import pytest
import torch
from torch import Tensor

import lavie.builtin
from lavie.errors import SpecError
from lavie.registry import Registry
from lavie.samplers import GuidanceSpec, Sampler, SamplerSpec, ScheduleSpec, make_denoise, target
from lavie.samplers.base import Denoise
from lavie.samplers.schedule import Schedule
from lavie.spec import PredictionType

REGISTRY = Registry(lavie.builtin)
SCHEDULES: dict[str, Schedule] = {
    **{name: REGISTRY.load(ScheduleSpec, name).build() for name in REGISTRY.components("schedule")},
    "shifted": REGISTRY.load(ScheduleSpec, {"type": "flow", "shift": 3.0}).build(),
    "endless": REGISTRY.load(ScheduleSpec, {"type": "linear", "terminal_sigma": 1e8}).build(),
}
WIDE = {"dynamic_thresholding": {"bound": 1e6}}
NESTED = {"type": "interval", "inner": {"type": "rescale", "inner": {"type": "perturbed_attention", "inner": "apg"}}}
GUIDANCES: list[object] = [
    *({"type": name, **WIDE.get(name, {})} for name in REGISTRY.components("guidance")),
    NESTED,
]
each_sampler = pytest.mark.parametrize("name", REGISTRY.components("sampler"))
SHAPE = (1, 2, 2, 3, 3)


def start() -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def noise(step: int, shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(100 + step), dtype=torch.float64)


def network_for(schedule: Schedule, prediction_type: PredictionType) -> Denoise:
    """Return the `denoise` of a network that answers with the best prediction of its type."""

    def network(model_input: Tensor, timestep: Tensor, sigma: list[float]) -> Tensor:
        alpha, sigma_hat = schedule.scales(sigma[0])
        latent = gaussian_case.denoise(model_input / alpha, sigma[0])
        return target(latent, (model_input - alpha * latent) / sigma_hat, sigma[0], schedule, prediction_type)

    told: list[float] = []
    denoise = make_denoise(network, schedule, prediction_type, told, torch.float64)

    def remembering(noisy: Tensor, sigma: float) -> Tensor:
        told[:] = [sigma]
        return denoise(noisy, sigma)

    return remembering


@cache
def make(name: str, schedule: Schedule) -> Sampler:
    return REGISTRY.load(SamplerSpec, {"type": name, "num_inference_steps": 3}).build(schedule)


@cache
def expected(name: str, schedule: str) -> Tensor:
    return make(name, SCHEDULES[schedule]).sample(gaussian_case.denoise, start(), noise)


@pytest.mark.parametrize("prediction_type", get_args(PredictionType))
def test_every_solver_schedule_and_guidance_goes_with_a_prediction_type(prediction_type: PredictionType) -> None:
    """Where all branches of a guidance agree, none of these choices may change what comes out."""
    wrong, refused = [], {}
    for schedule_name, schedule in SCHEDULES.items():
        try:
            denoise = network_for(schedule, prediction_type)
        except SpecError as error:
            refused[schedule_name] = str(error)
            continue
        for guidance in GUIDANCES:
            wrap = REGISTRY.load(GuidanceSpec, guidance).build()
            guided = wrap(denoise, denoise, perturbed=lambda places, denoise=denoise: denoise)
            for name in REGISTRY.components("sampler"):
                found = make(name, schedule).sample(guided, start(), noise)
                if not torch.allclose(found, expected(name, schedule_name), rtol=1e-5, atol=1e-5):
                    wrong.append((name, schedule_name, guidance))
    assert not wrong
    reason = "prediction_type: epsilon says nothing of the latent where all is noise (sigma 1e+08); use v_prediction"
    assert list(refused) == (["endless"] if prediction_type == "epsilon" else [])
    assert all(text.startswith(reason) for text in refused.values())


SHIFTED = {"cfg": {"scale": 3.0}, "perturbed_attention": {"inner": "none", "scale": 2.0}}


@pytest.mark.parametrize("guidance", SHIFTED)
@each_sampler
def test_guidance_between_gaussians_is_sampling_a_gaussian_further_on(name: str, guidance: str) -> None:
    """Two of one width differ in their means alone, so that a step from one to the other is a step of the mean."""
    away = 0.3

    def without(noisy: Tensor, sigma: float) -> Tensor:
        return gaussian_case.denoise(noisy, sigma) - away * sigma**2 / (gaussian_case.STD**2 + sigma**2)

    wrap = REGISTRY.load(GuidanceSpec, {"type": guidance, **SHIFTED[guidance]}).build()
    sampler = make(name, SCHEDULES["linear"])
    found = sampler.sample(wrap(gaussian_case.denoise, without, perturbed=lambda places: without), start(), noise)

    def further(noisy: Tensor, sigma: float) -> Tensor:
        return gaussian_case.denoise(noisy, sigma) + 2 * away * sigma**2 / (gaussian_case.STD**2 + sigma**2)

    torch.testing.assert_close(found, sampler.sample(further, start(), noise), rtol=1e-9, atol=1e-9)
