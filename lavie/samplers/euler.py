"""Euler's method on the probability flow (arXiv 2206.00364, algorithm 1 without its second-order part)."""

from collections.abc import Iterator
from typing import Literal, final

from jaxtyping import Float
from torch import Tensor

from lavie.samplers.base import Denoise, Noise, Sampler, Step
from lavie.samplers.grid import GridSpec
from lavie.samplers.schedule import Schedule


@final
class Euler(Sampler):
    """Follows the straight line through the denoised latent; deterministic, first order."""

    def steps(self, denoise: Denoise, initial: Float[Tensor, "b c f h w"], noise: Noise) -> Iterator[Step]:
        """Walk from `initial` to zero noise; never calls `noise`."""
        noisy = self.start(initial)
        for index, sigma, sigma_next in self.intervals():
            denoised = denoise(noisy, sigma)
            noisy = denoised + sigma_next / sigma * (noisy - denoised)
            yield self.step(index, noisy, denoised)


@final
class EulerSpec(GridSpec):
    """Euler's method: one network call per step, no noise added."""

    type: Literal["euler"] = "euler"

    def build(self, schedule: Schedule) -> Euler:
        """Lay the grid over a schedule."""
        sigmas = self.full_grid(schedule)
        return Euler(schedule, sigmas, self.full_scale(schedule, sigmas[0]))
