"""What noise schedules, guidance and solvers promise, tried on a Gaussian, where the right answer is known."""

from collections.abc import Mapping

import torch
from torch import Tensor

from lavie.blocks.base import Site
from lavie.samplers.base import Sampler, SamplerSpec
from lavie.samplers.guidance import GuidanceSpec
from lavie.samplers.schedule import FlowScheduleSpec, LinearScheduleSpec, Schedule, ScheduleSpec
from lavie.testing.expect import expect

_SHAPE = (2, 4, 3, 4, 4)


def check_schedule(spec: ScheduleSpec, site: Site, inputs: Mapping[str, Tensor]) -> None:
    """Give an increasing float64 table, and lead from sigma to timestep and back."""
    schedule = spec.build()
    expect(isinstance(schedule, Schedule), spec, f"builds {type(schedule).__name__}, which is no Schedule")
    sigmas = schedule.sigmas
    expect(sigmas.dtype == torch.float64, spec, f"has a table in {sigmas.dtype}, float64 is due")
    expect(len(sigmas) == schedule.num_train_timesteps, spec, f"has {len(sigmas)} sigmas for its timesteps")
    expect(bool(torch.isfinite(sigmas).all()), spec, "has sigmas that are not finite")
    expect(bool((sigmas.diff() > 0).all()), spec, "has sigmas that do not increase")
    for sigma in sigmas[:: max(1, len(sigmas) // 16)].tolist():
        timestep = schedule.timestep(sigma)
        inside = 0 <= timestep < schedule.num_train_timesteps
        expect(inside, spec, f"tells the network {timestep} at sigma {sigma}, outside its timesteps")
        back = schedule.sigma(timestep)
        expect(abs(back - sigma) <= 1e-6 * sigma, spec, f"leads from sigma {sigma} to {back} and not back to it")
        alpha, sigma_hat = schedule.scales(sigma)
        expect(abs(sigma_hat - sigma * alpha) <= 1e-9 * sigma, spec, f"scales signal and noise not by sigma at {sigma}")


def check_guidance(spec: GuidanceSpec, site: Site, inputs: Mapping[str, Tensor]) -> None:
    """Turn two `denoise` into one; agree with them where they agree."""
    guidance = spec.build()
    noisy = torch.randn(_SHAPE, generator=torch.Generator().manual_seed(0))
    guided = guidance(_gaussian, _gaussian, perturbed=lambda places: _gaussian)(noisy, 2.0)
    expect(guided.shape == noisy.shape, spec, f"returns shape {tuple(guided.shape)} for {_SHAPE}")
    same = bool(torch.isclose(guided, _gaussian(noisy, 2.0), atol=1e-5).all())
    expect(same, spec, "changes the answer though both branches agree")


def check_sampler(spec: SamplerSpec, site: Site, inputs: Mapping[str, Tensor]) -> None:
    """Walk down a grid on every schedule it accepts, report each step, and repeat itself exactly."""
    refusals = []
    for schedule in (LinearScheduleSpec().build(), FlowScheduleSpec().build()):
        try:
            sampler = spec.build(schedule)
        except ValueError as error:
            refusals.append(str(error))
            continue
        _check_walk(spec, sampler)
    expect(len(refusals) < 2, spec, f"accepts no schedule: {'; '.join(refusals)}")


def _check_walk(spec: SamplerSpec, sampler: Sampler) -> None:
    expect(isinstance(sampler, Sampler), spec, f"builds {type(sampler).__name__}, which is no Sampler")
    expect(sampler.sigmas.dtype == torch.float64, spec, f"has a grid in {sampler.sigmas.dtype}, float64 is due")
    expect(bool((sampler.sigmas.diff() <= 0).all()), spec, "has a grid that does not decrease")
    initial = torch.randn(_SHAPE, generator=torch.Generator().manual_seed(0))
    steps = list(sampler.steps(_gaussian, initial, _noise))
    numbers = [(step.index, step.num_steps) for step in steps]
    expect(numbers == [(i, len(steps)) for i in range(len(steps))], spec, f"numbers its steps {numbers}")
    expect(
        len(steps) == len(sampler.timesteps), spec, f"takes {len(steps)} steps on a grid of {len(sampler.timesteps)}"
    )
    last = steps[-1].noisy
    expect(last.shape == _SHAPE and bool(torch.isfinite(last).all()), spec, "ends in another shape or in infinity")
    again = list(sampler.steps(_gaussian, initial, _noise))[-1].noisy
    expect(torch.equal(last, again), spec, "does not repeat itself, though noise is only to come from its source")


def _gaussian(noisy: Tensor, sigma: float) -> Tensor:
    """Return the expected clean latent if latents are standard normal."""
    return noisy / (1 + sigma**2)


def _noise(step: int, shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(step + 1))
