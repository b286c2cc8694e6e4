"""DPM-Solver++ on the stochastic process (arXiv 2211.01095, appendix A): the multistep solver of second order."""

from collections.abc import Iterator
from typing import Literal, final

from jaxtyping import Float
from torch import Tensor

from lavie.samplers.base import Denoise, Noise, Sampler, Step, draw
from lavie.samplers.dpmpp import extrapolate
from lavie.samplers.grid import GridSpec, unit_scale
from lavie.samplers.schedule import Schedule
from lavie.spec import Fraction


@final
class DPMPP2MSDE(Sampler):
    """Extrapolates like `dpmpp_2m`, while the noise of each step is in part forgotten and drawn anew."""

    def __init__(self, schedule: Schedule, sigmas: list[float], *, eta: float) -> None:
        super().__init__(schedule, sigmas, unit_scale(schedule, sigmas[0]))
        self.eta = eta

    def steps(self, denoise: Denoise, initial: Float[Tensor, "b c f h w"], noise: Noise) -> Iterator[Step]:
        """Walk from `initial` to zero noise; `noise` is called at every step but the last, unless eta is 0.

        In sigma coordinates and log sigma the process is linear but for the denoised latent: what is left of the
        start falls as σ^(1+η), and the noise drawn on the way fills up what is missing to σ'.
        """
        noisy = self.start(initial)
        before: tuple[float, Tensor] | None = None
        for index, sigma, sigma_next in self.intervals():
            denoised = denoise(noisy, sigma)
            ahead = denoised if before is None else extrapolate(denoised, sigma, sigma_next, *before)
            noisy = ahead + (sigma_next / sigma) ** (1 + self.eta) * (noisy - ahead)
            spread = sigma_next * (1 - (sigma_next / sigma) ** (2 * self.eta)) ** 0.5
            if spread > 0:
                noisy = noisy + spread * draw(noise, index, noisy)
            before = sigma, denoised
            yield self.step(index, noisy, denoised)


@final
class DPMPP2MSDESpec(GridSpec):
    """DPM-Solver++ 2M SDE: one network call per step and fresh noise, which mends errors that were made before."""

    type: Literal["dpmpp_2m_sde"] = "dpmpp_2m_sde"
    eta: Fraction = 1.0
    """How much noise is drawn anew, from 0 (as dpmpp_2m) to 1 (as ancestral sampling). Not ddim's scale."""

    def build(self, schedule: Schedule) -> DPMPP2MSDE:
        """Lay the grid over a schedule."""
        return DPMPP2MSDE(schedule, self.inner_grid(schedule), eta=self.eta)
