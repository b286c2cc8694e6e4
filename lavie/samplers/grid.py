"""The noise levels that solvers of the probability flow step on."""

from abc import ABC
from typing import Literal

from lavie.samplers.base import Offset, SamplerSpec
from lavie.samplers.schedule import Schedule
from lavie.samplers.spacing import check_count, positions

SigmaSpacing = Literal["leading", "trailing", "linspace", "even", "karras", "exponential"]
RHO = 7.0
"""How much Karras spacing favours low noise (arXiv 2206.00364, table 1)."""


class GridSpec(SamplerSpec, ABC):
    """A solver of the probability flow, and how it spreads its steps; all of them end at zero noise."""

    spacing: SigmaSpacing | None = None
    """Where steps start: leading, trailing, linspace or even in timesteps, karras or exponential in noise level; left
    out: linspace, or even with a flow schedule."""
    offset: Offset = 0
    """Timesteps added to the leading spacing."""

    def full_grid(self, schedule: Schedule) -> list[float]:
        """Return the noise levels; `linspace` and `leading` have a step from the first timestep to zero noise."""
        return [*_starts(schedule, self.spacing or schedule.spacing, self.num_inference_steps, self.offset), 0.0]

    def inner_grid(self, schedule: Schedule) -> list[float]:
        """Return the noise levels, which never stop at the first timestep before zero noise.

        Multistep solvers count in log sigma, where the step from there to zero would be long. `linspace` and `leading`
        are laid with one step more and rounded, and their last start is left out.
        """
        spacing, count = self.spacing or schedule.spacing, self.num_inference_steps
        if spacing not in ("linspace", "leading"):
            return self.full_grid(schedule)
        check_count(schedule.num_train_timesteps - 1, count)
        grid = positions(spacing, schedule.num_train_timesteps, count + 1, self.offset)
        return [*(schedule.at(float(round(position))) for position in grid[:-1]), 0.0]

    def full_scale(self, schedule: Schedule, sigma: float) -> float:
        """Return the scale of the initial draw on the full grid, as k-diffusion and diffusers choose it.

        The signal is taken for lost at the last timestep, so that `sigma` alone scales; `leading` and `even` grids
        start elsewhere or in other coordinates, and give the network a unit input.
        """
        unit_input = (self.spacing or schedule.spacing) in ("leading", "even")
        return unit_scale(schedule, sigma) if unit_input else sigma


def unit_scale(schedule: Schedule, sigma: float) -> float:
    """Return the scale that makes a standard normal draw the network's input at `sigma`, as it is."""
    return 1 / schedule.scales(sigma)[0]


def _starts(schedule: Schedule, spacing: SigmaSpacing, count: int, offset: int) -> list[float]:
    if spacing == "karras" or spacing == "exponential":
        return between(spacing, schedule.sigmas[-1].item(), schedule.sigmas[0].item(), count)
    grid = positions(spacing, schedule.num_train_timesteps, count, offset)
    return [schedule.at(position) for position in grid]


def between(shape: Literal["karras", "exponential"], high: float, low: float, count: int) -> list[float]:
    """Return noise levels from `high` down to `low`, even in their seventh root or in their logarithm."""
    fractions = [index / max(count - 1, 1) for index in range(count)]
    if shape == "exponential":
        return [high ** (1 - fraction) * low**fraction for fraction in fractions]
    start, end = high ** (1 / RHO), low ** (1 / RHO)
    return [(start + fraction * (end - start)) ** RHO for fraction in fractions]
