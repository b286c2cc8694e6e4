"""Euler's method with ancestral noise: a step beyond the target, and noise back up to it."""

from collections.abc import Iterator
from typing import Literal, final

from jaxtyping import Float
from torch import Tensor

from lavie.samplers.base import Denoise, Noise, Sampler, Step, draw, posterior_std
from lavie.samplers.grid import GridSpec
from lavie.samplers.schedule import Schedule


@final
class EulerAncestral(Sampler):
    """Draws from the posterior of the forward process, like `ddpm`, on the grids of `euler`."""

    def steps(self, denoise: Denoise, initial: Float[Tensor, "b c f h w"], noise: Noise) -> Iterator[Step]:
        """Walk from `initial` to zero noise; `noise` is called at every step but the last."""
        noisy = self.start(initial)
        for index, sigma, sigma_next in self.intervals():
            denoised = denoise(noisy, sigma)
            noisy = denoised + (sigma_next / sigma) ** 2 * (noisy - denoised)
            spread = posterior_std(sigma, sigma_next)
            if spread > 0:
                noisy = noisy + spread * draw(noise, index, noisy)
            yield self.step(index, noisy, denoised)


@final
class EulerAncestralSpec(GridSpec):
    """Euler's method with noise added at every step but the last: more varied, never settles."""

    type: Literal["euler_ancestral"] = "euler_ancestral"

    def build(self, schedule: Schedule) -> EulerAncestral:
        """Lay the grid over a schedule."""
        sigmas = self.full_grid(schedule)
        return EulerAncestral(schedule, sigmas, self.full_scale(schedule, sigmas[0]))
