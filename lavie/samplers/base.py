"""What every solver is: a grid of noise levels and one loop over it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, ClassVar, final

import torch
from jaxtyping import Float, Float64
from pydantic import Field
from torch import Tensor

from lavie.samplers.schedule import Schedule
from lavie.spec import Count, Spec

Denoise = Callable[[Tensor, float], Tensor]
"""`(noisy in sigma coordinates, sigma) -> denoised`; guidance wraps it."""
Noise = Callable[[int, tuple[int, ...]], Tensor]
"""`(step, shape) -> standard normal draw`; only called by solvers, and at steps, that add noise."""
Offset = Annotated[int, Field(ge=0, le=65535)]
"""Timesteps by which a grid is moved up."""


@dataclass(frozen=True, eq=False)
class Step:
    """One finished step of a solver."""

    index: int
    num_steps: int
    timestep: float
    """What the network was told."""
    sigma: float
    """Where the step began."""
    sigma_next: float
    """Where it ended: the noise level of `noisy`."""
    noisy: Float[Tensor, "b c f h w"]
    """The result, in sigma coordinates; `Sampler.latent` turns the last one into a latent to decode."""
    denoised: Float[Tensor, "b c f h w"]
    """The clean latent as predicted at `sigma`: a preview."""


class Sampler(ABC):
    """A solver with its grid; holds no state between runs, so one sampler may serve several at once."""

    def __init__(self, schedule: Schedule, sigmas: Sequence[float], initial_scale: float) -> None:
        assert all(high >= low for high, low in pairwise(sigmas)), "sigmas must not increase"
        self.schedule = schedule
        self.sigmas: Float64[Tensor, " n"] = torch.tensor(sigmas, dtype=torch.float64, device="cpu")
        self.timesteps = [schedule.timestep(sigma) for sigma in sigmas[:-1]]
        self.initial_scale = initial_scale

    @abstractmethod
    def steps(self, denoise: Denoise, initial: Float[Tensor, "b c f h w"], noise: Noise) -> Iterator[Step]:
        """Walk from `initial`, a standard normal draw, to the end of the grid."""

    def start(self, initial: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b c f h w"]:
        """Scale a standard normal draw to the first noise level; half precision becomes float32."""
        return initial.to(torch.promote_types(initial.dtype, torch.float32)) * self.initial_scale

    def intervals(self) -> Iterator[tuple[int, float, float]]:
        """Yield `(index, sigma, sigma_next)` of each step."""
        sigmas = self.sigmas.tolist()
        return ((index, *pair) for index, pair in enumerate(pairwise(sigmas)))

    def interval(self, index: int) -> tuple[float, float]:
        """Return `(sigma, sigma_next)` of a step."""
        sigma, sigma_next = self.sigmas[index : index + 2].tolist()
        return sigma, sigma_next

    def step(self, index: int, noisy: Tensor, denoised: Tensor) -> Step:
        """Report a step along the grid."""
        sigma, sigma_next = self.interval(index)
        return Step(index, len(self.timesteps), self.timesteps[index], sigma, sigma_next, noisy, denoised)

    def latent(self, step: Step) -> Float[Tensor, "b c f h w"]:
        """Return the latent to decode after the last step.

        Where the grid ends above zero this is the network's view of it, with its rest of noise, as the official
        pipelines decode it.
        """
        return step.noisy * self.schedule.scales(step.sigma_next)[0]

    def sample(self, denoise: Denoise, initial: Float[Tensor, "b c f h w"], noise: Noise) -> Float[Tensor, "b c f h w"]:
        """Run all steps and return the latent to decode."""
        for step in self.steps(denoise, initial, noise):
            last = step
        return self.latent(last)


class OneStepSampler(Sampler, ABC):
    """A solver without memory: a step needs nothing but where it stands, and one answer of the network."""

    @abstractmethod
    def move(
        self, index: int, noisy: Float[Tensor, "b c f h w"], denoised: Float[Tensor, "b c f h w"], noise: Noise
    ) -> tuple[Float[Tensor, "b c f h w"], Float[Tensor, "b c f h w"]]:
        """Return where a step leads from `noisy`, and the denoised latent as the solver took it."""

    @final
    def steps(self, denoise: Denoise, initial: Float[Tensor, "b c f h w"], noise: Noise) -> Iterator[Step]:
        """Walk from `initial` to the end of the grid, step by step."""
        noisy = self.start(initial)
        for index, sigma, _ in self.intervals():
            noisy, denoised = self.move(index, noisy, denoise(noisy, sigma), noise)
            yield self.step(index, noisy, denoised)


class SamplerSpec(Spec, ABC):
    """A solver, with the spacing, offset and end of its time grid."""

    kind: ClassVar[str] = "sampler"
    num_inference_steps: Count = 50
    """Steps of the solver; each calls the network once, unless the solver says otherwise."""

    @abstractmethod
    def build(self, schedule: Schedule) -> Sampler:
        """Lay the solver's grid over a schedule.

        Raises:
            SpecError: if the steps do not fit the schedule.
        """


def clamp(denoised: Tensor, bound: float | None) -> Tensor:
    """Clamp a predicted clean latent to [-bound, bound]."""
    return denoised if bound is None else denoised.clamp(-bound, bound)


def draw(noise: Noise, index: int, like: Tensor) -> Tensor:
    """Draw one step's noise, on the device and in the dtype of `like`."""
    return noise(index, tuple(like.shape)).to(like)


def posterior_std(sigma: float, sigma_next: float) -> float:
    """Return the spread of the noisy latent at `sigma_next` given that at `sigma` and the clean one.

    In sigma coordinates the forward process is Brownian, hence σ'·√(1 - σ'²/σ²) (arXiv 2006.11239, eq. 7).
    """
    return float(sigma_next * (1 - (sigma_next / sigma) ** 2) ** 0.5)
