"""UniPC, a predictor and corrector of second order (arXiv 2302.04867, B2(h) = e^h - 1)."""

import math
from collections.abc import Iterator
from typing import Literal, final

from jaxtyping import Float
from torch import Tensor

from lavie.samplers.base import Denoise, Noise, Sampler, Step
from lavie.samplers.dpmpp import extrapolate
from lavie.samplers.grid import GridSpec, unit_scale
from lavie.samplers.schedule import Schedule


@final
class UniPC(Sampler):
    """Predicts like `dpmpp_2m`, and corrects each prediction with the network's answer there, at no extra call."""

    def steps(self, denoise: Denoise, initial: Float[Tensor, "b c f h w"], noise: Noise) -> Iterator[Step]:
        """Walk from `initial` to zero noise; never calls `noise`. The first and last steps are of lower order."""
        noisy = self.start(initial)
        corrected = noisy
        past: list[tuple[float, Tensor]] = []
        for index, sigma, sigma_next in self.intervals():
            denoised = denoise(noisy, sigma)
            if past:
                corrected = correct(corrected, sigma, denoised, past)
            ahead = extrapolate(denoised, sigma, sigma_next, *past[-1]) if past else denoised
            noisy = ahead + sigma_next / sigma * (corrected - ahead)
            past = [*past[-1:], (sigma, denoised)]
            yield self.step(index, noisy, denoised)


def correct(noisy: Tensor, sigma: float, denoised: Tensor, past: list[tuple[float, Tensor]]) -> Tensor:
    """Repeat the last step, from `noisy` down to `sigma`, now that the denoised latent at its end is known.

    `past` holds (sigma, denoised) of the last two steps, or of the last one, where the corrector is the trapezoid rule
    (arXiv 2302.04867, eq. 9; the weights solve its eq. 5).
    """
    sigma_from, start = past[-1]
    length = math.log(sigma_from / sigma)
    decay = math.expm1(-length)
    straight = start + sigma / sigma_from * (noisy - start)
    if len(past) == 1:
        return straight - decay / 2 * (denoised - start)
    sigma_before, before = past[0]
    ratio = math.log(sigma_from / sigma_before) / length
    first = -decay / length - 1
    second = 2 * (-first / length - 0.5)
    slope_weight = (first - second) / (1 - ratio)
    slope = (before - start) / ratio
    return straight - slope_weight * slope - (first - slope_weight) * (denoised - start)


@final
class UniPCSpec(GridSpec):
    """UniPC: second order with one network call per step, good from about 10 steps."""

    type: Literal["unipc"] = "unipc"

    def build(self, schedule: Schedule) -> UniPC:
        """Lay the grid over a schedule."""
        sigmas = self.inner_grid(schedule)
        return UniPC(schedule, sigmas, unit_scale(schedule, sigmas[0]))
