"""Ancestral sampling of the discrete diffusion process (arXiv 2006.11239, algorithm 2)."""

from typing import Literal, final

from jaxtyping import Float
from torch import Tensor

from lavie.samplers.base import Noise, Offset, OneStepSampler, SamplerSpec, clamp, draw, posterior_std
from lavie.samplers.grid import unit_scale
from lavie.samplers.schedule import Schedule
from lavie.samplers.spacing import TableSpacing, entries
from lavie.spec import Positive

Variance = Literal["fixed_small", "fixed_large"]


@final
class DDPM(OneStepSampler):
    """Draws each noisier-to-cleaner transition from the posterior of the forward process."""

    def __init__(self, schedule: Schedule, sigmas: list[float], *, variance: Variance, clip: float | None) -> None:
        super().__init__(schedule, sigmas, unit_scale(schedule, sigmas[0]))
        self.variance = variance
        self.clip = clip

    def move(
        self, index: int, noisy: Float[Tensor, "b c f h w"], denoised: Float[Tensor, "b c f h w"], noise: Noise
    ) -> tuple[Float[Tensor, "b c f h w"], Float[Tensor, "b c f h w"]]:
        """Draw from the posterior; `noise` is called where a step adds some.

        In sigma coordinates its mean is denoised + σ'²/σ² · (noisy - denoised) (arXiv 2006.11239, eq. 7).
        """
        sigma, sigma_next = self.interval(index)
        denoised = clamp(denoised, self.clip)
        noisy = denoised + (sigma_next / sigma) ** 2 * (noisy - denoised)
        spread = self._spread(index, sigma, sigma_next)
        return noisy + spread * draw(noise, index, noisy) if spread > 0 else noisy, denoised

    def _spread(self, index: int, sigma: float, sigma_next: float) -> float:
        """Return the standard deviation of the noise that a step adds, in sigma coordinates.

        `fixed_large` is the variance of the forward step as the network sees it (arXiv 2006.11239, §3.2), which is not
        zero when the grid ends above the first timestep; a step from timestep 0 never adds noise.
        """
        if self.variance == "fixed_small":
            return posterior_std(sigma, sigma_next)
        if self.timesteps[index] <= 0:
            return 0.0
        alpha, alpha_next = self.schedule.scales(sigma)[0], self.schedule.scales(sigma_next)[0]
        return float(alpha / alpha_next * (sigma**2 - sigma_next**2) ** 0.5)


@final
class DDPMSpec(SamplerSpec):
    """Ancestral sampling as in the official base script: adds noise at every step but the last."""

    type: Literal["ddpm"] = "ddpm"
    spacing: TableSpacing = "leading"
    """Which timesteps are visited: leading, trailing, linspace or respaced."""
    offset: Offset = 0
    """Timesteps added to the leading spacing: 0 ends at timestep 0 (diffusers up to 0.17), 1 at timestep 1 (since)."""
    variance: Variance = "fixed_small"
    """Variance of a step: fixed_small, of the posterior, or fixed_large, of the forward step."""
    clip: Positive | None = None
    """Bound that every predicted clean latent is clamped to, on both sides; left out: none."""

    def build(self, schedule: Schedule) -> DDPM:
        """Lay the grid over the table of a schedule; it ends at zero noise."""
        grid = entries(self.spacing, schedule.num_train_timesteps, self.num_inference_steps, self.offset)
        return DDPM(schedule, [*map(schedule.at, grid), 0.0], variance=self.variance, clip=self.clip)
