"""Euler's method with ancestral noise: a step beyond the target, and noise back up to it."""

from typing import Literal, final

from jaxtyping import Float
from torch import Tensor

from lavie.samplers.base import Noise, OneStepSampler, draw, posterior_std
from lavie.samplers.grid import GridSpec
from lavie.samplers.schedule import Schedule


@final
class EulerAncestral(OneStepSampler):
    """Draws from the posterior of the forward process, like `ddpm`, on the grids of `euler`."""

    def move(
        self, index: int, noisy: Float[Tensor, "b c f h w"], denoised: Float[Tensor, "b c f h w"], noise: Noise
    ) -> tuple[Float[Tensor, "b c f h w"], Float[Tensor, "b c f h w"]]:
        """Step beyond the next noise level and back up to it; `noise` is called at every step but the last."""
        sigma, sigma_next = self.interval(index)
        noisy = denoised + (sigma_next / sigma) ** 2 * (noisy - denoised)
        spread = posterior_std(sigma, sigma_next)
        return noisy + spread * draw(noise, index, noisy) if spread > 0 else noisy, denoised


@final
class EulerAncestralSpec(GridSpec):
    """Euler's method with noise added at every step but the last: more varied, never settles."""

    type: Literal["euler_ancestral"] = "euler_ancestral"

    def build(self, schedule: Schedule) -> EulerAncestral:
        """Lay the grid over a schedule."""
        sigmas = self.full_grid(schedule)
        return EulerAncestral(schedule, sigmas, self.full_scale(schedule, sigmas[0]))
