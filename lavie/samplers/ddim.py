"""Implicit sampling (arXiv 2010.02502): deterministic, or with a chosen share of the ancestral noise."""

from typing import Literal, final

from jaxtyping import Float
from torch import Tensor

from lavie.samplers.base import Noise, Offset, OneStepSampler, SamplerSpec, clamp, draw, posterior_std
from lavie.samplers.grid import unit_scale
from lavie.samplers.schedule import Schedule
from lavie.samplers.spacing import TableSpacing, entries
from lavie.spec import Fraction, Positive


@final
class DDIM(OneStepSampler):
    """Keeps the noise direction of the network and moves along it to each step's target.

    A target is where the next step starts, unless the stride is constant; then the network's view of the latent is
    read again at the noise level where the next step starts, as diffusers does.
    """

    def __init__(
        self, schedule: Schedule, sigmas: list[float], targets: list[float], *, eta: float, clip: float | None
    ) -> None:
        super().__init__(schedule, sigmas, unit_scale(schedule, sigmas[0]))
        self.targets = targets
        self.eta = eta
        self.clip = clip

    def move(
        self, index: int, noisy: Float[Tensor, "b c f h w"], denoised: Float[Tensor, "b c f h w"], noise: Noise
    ) -> tuple[Float[Tensor, "b c f h w"], Float[Tensor, "b c f h w"]]:
        """Step along the noise direction (arXiv 2010.02502, eq. 12 and 16, in sigma coordinates).

        A clamp moves the predicted latent only; the noise direction stays that of the network, as in diffusers.
        """
        (sigma, sigma_next), target = self.interval(index), self.targets[index]
        spread = self.eta * posterior_std(sigma, target)
        direction = (target**2 - spread**2) ** 0.5 / sigma * (noisy - denoised)
        denoised = clamp(denoised, self.clip)
        noisy = denoised + direction
        if spread > 0:
            noisy = noisy + spread * draw(noise, index, noisy)
        if target != sigma_next:
            noisy = noisy * (self.schedule.scales(target)[0] / self.schedule.scales(sigma_next)[0])
        return noisy, denoised


@final
class DDIMSpec(SamplerSpec):
    """Implicit sampling, as in the official base and super-resolution scripts; deterministic unless eta is set."""

    type: Literal["ddim"] = "ddim"
    spacing: TableSpacing = "leading"
    """Which timesteps are visited: leading, trailing, linspace or respaced."""
    offset: Offset = 1
    """Timesteps added to the leading spacing."""
    stride: Literal["grid", "constant"] = "grid"
    """Where a step leads: grid, to the start of the next one; constant, down by num_train_timesteps //
    num_inference_steps timesteps, as diffusers does for any spacing. Both are the same for leading."""
    set_alpha_to_one: bool = False
    """Whether the last step ends at zero noise instead of the first noise level of the table."""
    eta: Fraction = 0.0
    """Share of the ancestral noise, from 0 (deterministic) to 1 (as ddpm)."""
    clip: Positive | None = None
    """Bound that every predicted clean latent is clamped to, on both sides; left out: none."""

    def build(self, schedule: Schedule) -> DDIM:
        """Lay the grid over the table of a schedule."""
        total = schedule.num_train_timesteps
        grid = entries(self.spacing, total, self.num_inference_steps, self.offset)
        final = 0.0 if self.set_alpha_to_one else schedule.at(0.0)
        sigmas = [*map(schedule.at, grid), final]
        targets = sigmas[1:]
        if self.stride == "constant":
            down = [position - total // self.num_inference_steps for position in grid]
            targets = [schedule.at(position) if position >= 0 else final for position in down]
            sigmas[-1] = targets[-1]
        return DDIM(schedule, sigmas, targets, eta=self.eta, clip=self.clip)
