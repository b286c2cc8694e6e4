"""A whole sampling loop of every registered solver around a denoiser that costs nothing."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from benchmarks.measuring import Bench, Place
from benchmarks.settings import Setting
from lavie import Registry, SpecError, installed
from lavie.samplers.base import Sampler, SamplerSpec
from lavie.samplers.schedule import FlowScheduleSpec, LinearScheduleSpec

SAMPLERS = installed().components("sampler")
NOISE_LEFT = 0.05
"""How far from its grid's last sigma the spread of a result may be."""


def build(name: str, num_steps: int, registry: Registry) -> Sampler:
    """Lay a solver with its defaults over LaVie's schedule, or over straight paths if it wants those."""
    reasons = []
    for schedule in (LinearScheduleSpec(), FlowScheduleSpec()):
        try:
            data = {"type": name, "num_inference_steps": num_steps}
            return registry.load(SamplerSpec, data).build(schedule.build())  # type: ignore[type-abstract]
        except SpecError as error:
            reasons.append(str(error))
    pytest.skip(f"cannot be built with its defaults: {'; '.join(reasons)}")


def bare(start: Tensor, sigmas: list[float], denoised: Tensor) -> Tensor:
    """Do as little as a loop over the same noise levels can: one Euler step each, nothing checked or reported."""
    noisy = start
    for sigma, sigma_next in pairwise(sigmas):
        noisy = torch.lerp(denoised, noisy, sigma_next / sigma)
    return noisy


@pytest.mark.benchmark(group="sampler")
@pytest.mark.parametrize("name", SAMPLERS)
@torch.no_grad()
def bench_loop(name: str, bench: Bench, place: Place, setting: Setting, registry: Registry) -> None:
    """Compare a loop with the barest one over the same noise levels.

    The data are a single point at zero, so the clean latent is always zero, and whatever the solver, the result must
    be as far spread as the noise level at which its grid ends.
    """
    sampler = build(name, setting.num_steps, registry)
    shape = setting.latent.of(4)
    generator = torch.Generator("cpu").manual_seed(3)
    initial, *draws = torch.randn(setting.num_steps + 1, *shape, generator=generator).to(place.device).unbind()
    denoised = torch.zeros_like(initial)
    sigmas = sampler.sigmas.tolist()

    def loop() -> Tensor:
        return sampler.sample(lambda noisy, sigma: denoised, initial, lambda step, _: draws[step % len(draws)])

    spread = float(loop().std())
    expected = sigmas[-1] * sampler.schedule.scales(sigmas[-1])[0]
    assert abs(spread - expected) <= NOISE_LEFT * max(1.0, expected), f"spread {spread:.3g}, expected {expected:.3g}"
    bench.compare(loop, lambda: bare(initial * sampler.initial_scale, sigmas, denoised))
    bench.note(
        case=name,
        baseline="bare loop",
        dtype="float32",
        step_seconds=bench.record.extra_info["seconds"]["median"] / len(sampler.timesteps),
    )
