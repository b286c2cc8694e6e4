"""Euler's method on the probability flow (arXiv 2206.00364, algorithm 1 without its second-order part)."""

from collections.abc import Iterator
from typing import Literal, final

from jaxtyping import Float
from torch import Tensor

from lavie.samplers.base import Denoise, Noise, Offset, Sampler, SamplerSpec, Step
from lavie.samplers.schedule import Schedule
from lavie.samplers.spacing import Spacing, positions


@final
class Euler(Sampler):
    """Follows the straight line through the denoised latent; deterministic, first order."""

    def steps(self, denoise: Denoise, initial: Float[Tensor, "b c f h w"], noise: Noise) -> Iterator[Step]:
        """Walk from `initial` to the end of the grid; never calls `noise`."""
        noisy = self.start(initial)
        for index, sigma, sigma_next in self.intervals():
            denoised = denoise(noisy, sigma)
            noisy = denoised + sigma_next / sigma * (noisy - denoised)
            yield self.step(index, noisy, denoised)


@final
class EulerSpec(SamplerSpec):
    """Euler's method: one network call per step, ends at zero noise."""

    type: Literal["euler"] = "euler"
    spacing: Spacing | None = None
    """Where steps start: leading, trailing, linspace or even; left out: linspace, or even with a flow schedule."""
    offset: Offset = 0
    """Timesteps added to the leading spacing."""

    def build(self, schedule: Schedule) -> Euler:
        """Lay the grid; `linspace` and `trailing` start from pure noise of σ_max, the others from a unit input."""
        spacing = self.spacing or schedule.spacing
        grid = positions(spacing, schedule.num_train_timesteps, self.num_inference_steps, self.offset)
        sigmas = [*map(schedule.at, grid), 0.0]
        scale = sigmas[0] if spacing in ("linspace", "trailing") else 1 / schedule.scales(sigmas[0])[0]
        return Euler(schedule, sigmas, scale)
