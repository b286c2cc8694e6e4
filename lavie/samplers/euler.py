"""Euler's method on the probability flow (arXiv 2206.00364, algorithm 1 without its second-order part)."""

from typing import Literal, final

from jaxtyping import Float
from torch import Tensor

from lavie.samplers.base import Noise, OneStepSampler
from lavie.samplers.grid import GridSpec
from lavie.samplers.schedule import Schedule


@final
class Euler(OneStepSampler):
    """Follows the straight line through the denoised latent; deterministic, first order."""

    def move(
        self, index: int, noisy: Float[Tensor, "b c f h w"], denoised: Float[Tensor, "b c f h w"], noise: Noise
    ) -> tuple[Float[Tensor, "b c f h w"], Float[Tensor, "b c f h w"]]:
        """Follow the line to the next noise level; never calls `noise`."""
        sigma, sigma_next = self.interval(index)
        return denoised + sigma_next / sigma * (noisy - denoised), denoised


@final
class EulerSpec(GridSpec):
    """Euler's method: one network call per step, no noise added."""

    type: Literal["euler"] = "euler"

    def build(self, schedule: Schedule) -> Euler:
        """Lay the grid over a schedule."""
        sigmas = self.full_grid(schedule)
        return Euler(schedule, sigmas, self.full_scale(schedule, sigmas[0]))
