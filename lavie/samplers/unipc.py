"""UniPC, a predictor and corrector of any order (arXiv 2302.04867, B2(h) = e^h - 1)."""

import math
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal, final

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from lavie.samplers.base import Denoise, Noise, Sampler, Step
from lavie.samplers.grid import GridSpec, unit_scale
from lavie.samplers.schedule import Schedule


@final
class UniPC(Sampler):
    """Predicts each step from denoised latents of the last ones, and corrects it with the one found at its end.

    The corrector costs no call of the network: it uses the answer that the next step asks for anyway.
    """

    def __init__(self, schedule: Schedule, sigmas: list[float], *, order: int) -> None:
        super().__init__(schedule, sigmas, unit_scale(schedule, sigmas[0]))
        self.order = order

    def steps(self, denoise: Denoise, initial: Float[Tensor, "b c f h w"], noise: Noise) -> Iterator[Step]:
        """Walk from `initial` to zero noise; never calls `noise`. The order grows at the start and falls at the end."""
        noisy = corrected = self.start(initial)
        past: list[tuple[float, Tensor]] = []
        count = len(self.timesteps)
        for index, sigma, sigma_next in self.intervals():
            denoised = denoise(noisy, sigma)
            if past:
                corrected = advance(corrected, sigma, past, denoised)
            past = [*past, (sigma, denoised)][-min(self.order, count - index) :]
            noisy = advance(corrected, sigma_next, past)
            yield self.step(index, noisy, denoised)


def advance(
    noisy: Float[Tensor, "b c f h w"],
    sigma_next: float,
    past: Sequence[tuple[float, Float[Tensor, "b c f h w"]]],
    ahead: Float[Tensor, "b c f h w"] | None = None,
) -> Float[Tensor, "b c f h w"]:
    """Lead from the last noise level of `past` down to `sigma_next` (arXiv 2302.04867, eq. 3 and 9).

    `past` holds (sigma, denoised) of steps, oldest first; `ahead` is the denoised latent at `sigma_next` where it is
    known, which makes the predictor a corrector.
    """
    sigma, start = past[-1]
    straight = start + sigma_next / sigma * (noisy - start)
    if sigma_next == 0:
        return straight
    length = math.log(sigma / sigma_next)
    known = [(math.log(sigma / before) / length, denoised) for before, denoised in reversed(past[:-1])]
    if ahead is not None:
        known.append((1.0, ahead))
    weights = _weights(length, [place for place, _ in known])
    bend = [weight / place * (denoised - start) for weight, (place, denoised) in zip(weights, known, strict=True)]
    return straight - math.expm1(-length) * sum(bend, start=torch.zeros_like(start))


def _weights(length: float, places: Sequence[float]) -> list[float]:
    """Return how much the slope towards each known denoised latent counts in a step of `length` in log sigma.

    They solve eq. 5 of arXiv 2302.04867, so that a denoised latent that is a polynomial in log sigma is led exactly;
    with one known place the paper takes a half instead.
    """
    if len(places) < 2:
        return [0.5] * len(places)
    moments, moment, factorial = [], math.expm1(-length) / -length - 1, 1.0
    for power in range(1, len(places) + 1):
        factorial *= power
        moments.append(moment * factorial / math.expm1(-length))
        moment = moment / -length - 1 / (factorial * (power + 1))
    with torch.device("cpu"):
        table = [[place**power for place in places] for power in range(len(places))]
        powers = torch.tensor(table, dtype=torch.float64)
        return torch.linalg.solve(powers, torch.tensor(moments, dtype=torch.float64)).tolist()


@final
class UniPCSpec(GridSpec):
    """UniPC: high order with one network call per step, good from about 10 steps."""

    type: Literal["unipc"] = "unipc"
    order: Annotated[int, Field(ge=1, le=3)] = 2
    """Order of the predictor, 1 to 3; 3 for unguided sampling only. The corrector adds one."""

    def build(self, schedule: Schedule) -> UniPC:
        """Lay the grid over a schedule."""
        return UniPC(schedule, self.inner_grid(schedule), order=self.order)
