"""The one case where everything about sampling is known: latents drawn from N(MEAN, STD²), each number on its own.

The best possible denoiser is a weighted mean, so solvers are affine in their start and in each of their draws. A batch
holding one of these each therefore gives the exact mean and variance of what a solver draws.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from lavie.samplers import Sampler

MEAN, STD = 0.4, 0.7


def denoise(noisy: Tensor, sigma: float) -> Tensor:
    """Return the expected latent of a noisy one."""
    return (STD**2 * noisy + sigma**2 * MEAN) / (STD**2 + sigma**2)


@dataclass(frozen=True)
class Moments:
    """The distribution of a noisy latent at the end of a step, over the draws, given the start."""

    sigma: float
    mean_of_zero: float
    """Its mean if the solver starts at 0."""
    gain: float
    """How much the mean grows with the start."""
    variance: float


def drawn_by(sampler: Sampler) -> list[Moments]:
    """Return the distribution after each step of a solver."""
    count = len(sampler.timesteps)
    start = torch.zeros(count + 2, 1, 1, 1, 1, dtype=torch.float64)
    start[1] = 1 / sampler.initial_scale

    def noise(step: int, shape: tuple[int, ...]) -> Tensor:
        drawn = torch.zeros(shape, dtype=torch.float64)
        drawn[2 + step] = 1
        return drawn

    found = []
    for step in sampler.steps(denoise, start, noise):
        zero, one, *rest = step.noisy.flatten().tolist()
        variance = sum((drawn - zero) ** 2 for drawn in rest)
        found.append(Moments(step.sigma_next, zero, one - zero, variance))
    return found


def exact(sigma: float, sigma_next: float, eta: float) -> Moments:
    """Return the true distribution at `sigma_next`, given the noisy latent at `sigma`.

    With `eta` 0 that is the probability flow, with 1 the posterior of the forward process (arXiv 2011.13456, §4.3).
    """
    before, after = STD**2 + sigma**2, STD**2 + sigma_next**2
    gain = (after / before) ** ((1 + eta) / 2)
    return Moments(sigma_next, MEAN * (1 - gain), gain, after - gain**2 * before)
