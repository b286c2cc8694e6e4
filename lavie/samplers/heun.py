"""Heun's method on the probability flow (arXiv 2206.00364, algorithm 1)."""

from collections.abc import Iterator
from typing import Literal, final

from jaxtyping import Float
from torch import Tensor

from lavie.samplers.base import Denoise, Noise, Sampler, Step
from lavie.samplers.grid import GridSpec
from lavie.samplers.schedule import Schedule


@final
class Heun(Sampler):
    """Averages the slopes at both ends of a step; deterministic, second order, two network calls per step."""

    def steps(self, denoise: Denoise, initial: Float[Tensor, "b c f h w"], noise: Noise) -> Iterator[Step]:
        """Walk from `initial` to zero noise; never calls `noise`. The last step is Euler's."""
        noisy = self.start(initial)
        for index, sigma, sigma_next in self.intervals():
            denoised = denoise(noisy, sigma)
            ahead = denoised + sigma_next / sigma * (noisy - denoised)
            if sigma_next > 0:
                scale, time = self.schedule.clock(sigma)
                scale_next, time_next = self.schedule.clock(sigma_next)
                slope = (scale * noisy - denoised) / time
                slope_next = (scale_next * ahead - denoise(ahead, sigma_next)) / time_next
                ahead = (scale * noisy + (time_next - time) * (slope + slope_next) / 2) / scale_next
            noisy = ahead
            yield self.step(index, noisy, denoised)


@final
class HeunSpec(GridSpec):
    """Heun's method: two network calls per step but for the last, no noise added."""

    type: Literal["heun"] = "heun"

    def build(self, schedule: Schedule) -> Heun:
        """Lay the grid over a schedule."""
        sigmas = self.full_grid(schedule)
        return Heun(schedule, sigmas, self.full_scale(schedule, sigmas[0]))
