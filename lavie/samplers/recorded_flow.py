"""Grids of recorded trajectories along straight paths."""

from lavie.samplers.recorded_tables import Options
from lavie.samplers.schedule import RectifiedFlow

NEARLY_ONE = 1 - 1e-9
"""Recordings start where all is noise and sigma has no end; from here on nothing can be told from it."""


def shifted_grid(count: int, options: Options) -> tuple[RectifiedFlow, list[float]]:
    """Return the grid of diffusers' flow matching schedulers: even from all noise to the first t, shifted twice there.

    The first t of their table is shifted already, and then again as every place of the grid.
    """
    total, shift = options["num_train_timesteps"], float(options["shift"])
    first = _shift(1 / total, shift)
    return _grid([1 + (first - 1) * index / max(count - 1, 1) for index in range(count)], total, shift)


def flow_grid(count: int, options: Options) -> tuple[RectifiedFlow, list[float]]:
    """Return the grid of diffusers' multistep solvers with flow sigmas, each of which has its own first place."""
    total, shift = options["num_train_timesteps"], float(options["flow_shift"])
    first = 1 / total
    step = (1 - first) / count
    if "algorithm_type" in options:
        return _grid([(count - index) * step for index in range(count)], total, shift)
    schedule, sigmas = _grid([1 - index * step for index in range(count)], total, shift)
    return schedule, [(1 - 1e-6) / 1e-6, *sigmas[1:]]


def _grid(places: list[float], num_train_timesteps: int, shift: float) -> tuple[RectifiedFlow, list[float]]:
    times = [min(_shift(place, shift), NEARLY_ONE) for place in places]
    return RectifiedFlow(num_train_timesteps, shift), [*(t / (1 - t) for t in times), 0.0]


def _shift(t: float, shift: float) -> float:
    return shift * t / (1 + (shift - 1) * t)
