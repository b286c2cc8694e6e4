"""DPM-Solver++, the multistep solver of second order (arXiv 2211.01095, algorithm 2)."""

import math
from collections.abc import Iterator
from typing import Literal, final

from jaxtyping import Float
from torch import Tensor

from lavie.samplers.base import Denoise, Noise, Sampler, Step
from lavie.samplers.grid import GridSpec, unit_scale
from lavie.samplers.schedule import Schedule


@final
class DPMPP2M(Sampler):
    """Extrapolates the denoised latent in log sigma from this step and the last; deterministic, second order."""

    def steps(self, denoise: Denoise, initial: Float[Tensor, "b c f h w"], noise: Noise) -> Iterator[Step]:
        """Walk from `initial` to zero noise; never calls `noise`. The first and last steps are of first order."""
        noisy = self.start(initial)
        before: tuple[float, Tensor] | None = None
        for index, sigma, sigma_next in self.intervals():
            denoised = denoise(noisy, sigma)
            ahead = denoised if before is None else extrapolate(denoised, sigma, sigma_next, *before)
            noisy = ahead + sigma_next / sigma * (noisy - ahead)
            before = sigma, denoised
            yield self.step(index, noisy, denoised)


def extrapolate(denoised: Tensor, sigma: float, sigma_next: float, sigma_before: float, before: Tensor) -> Tensor:
    """Return the denoised latent that stands for a whole step: on its line in log sigma, half a step ahead.

    A step to zero noise is endless in log sigma: there is nothing to extrapolate to (arXiv 2211.01095, eq. 13).
    """
    if sigma_next == 0:
        return denoised
    ratio = math.log(sigma / sigma_next) / math.log(sigma_before / sigma)
    return denoised + ratio / 2 * (denoised - before)


@final
class DPMPP2MSpec(GridSpec):
    """DPM-Solver++ 2M: second order with one network call per step, good from about 15 steps."""

    type: Literal["dpmpp_2m"] = "dpmpp_2m"

    def build(self, schedule: Schedule) -> DPMPP2M:
        """Lay the grid over a schedule."""
        sigmas = self.inner_grid(schedule)
        return DPMPP2M(schedule, sigmas, unit_scale(schedule, sigmas[0]))
