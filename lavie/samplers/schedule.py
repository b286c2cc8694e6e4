"""Noise schedules: which noise level each training timestep stands for, and how signal and noise are mixed there.

Everything is counted in sigma, the ratio of noise to signal. What the network sees is `alpha * latent + sigma_hat *
noise` with `sigma_hat / alpha = sigma`; solvers work on `latent + sigma * noise` ("sigma coordinates").
"""

import math
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Annotated, ClassVar, Literal, Self, TypeVar, final

import torch
from jaxtyping import Float64
from pydantic import Field, model_validator
from torch import Tensor

from lavie.spec import Spec

Level = TypeVar("Level", float, Tensor)
"""A noise level: one number, or one per sample of a batch."""
Beta = Annotated[float, Field(gt=0, lt=1)]
NumTimesteps = Annotated[int, Field(ge=2, le=65536)]
MAX_SIGMA = 1e8
"""Above this the signal is lost in the rounding of float32."""
ENDLESS = 1e5
"""A table that goes beyond it counts as ending in nothing but noise."""


class Schedule(ABC):
    """The table of noise levels that a network is trained on, and the way between timestep and sigma.

    A *position* is a place in the table, an integer at its entries. For variance-preserving schedules it is the
    timestep that the network is told; a flow schedule with a shift tells the network another number.
    """

    spacing: ClassVar[Literal["linspace", "even"]]
    """How solvers of the probability flow spread their steps over this schedule unless told otherwise."""

    def __init__(self, sigmas: Sequence[float], timesteps: Sequence[float]) -> None:
        assert all(low < high for low, high in pairwise(sigmas)), "sigmas must increase"
        self.num_train_timesteps = len(sigmas)
        self.sigmas: Float64[Tensor, " timesteps"] = torch.tensor(sigmas, dtype=torch.float64, device="cpu")
        self.timesteps: Float64[Tensor, " timesteps"] = torch.tensor(timesteps, dtype=torch.float64, device="cpu")

    @abstractmethod
    def at(self, position: float) -> float:
        """Return the sigma at a place of the table, in [0, num_train_timesteps - 1]; between entries, in between."""

    @abstractmethod
    def sigma(self, timestep: float) -> float:
        """Return the sigma of what the network is told."""

    @abstractmethod
    def timestep(self, sigma: float) -> float:
        """Return what the network is told at a sigma, in [0, num_train_timesteps)."""

    @abstractmethod
    def scales(self, sigma: Level) -> tuple[Level, Level]:
        """Return `(alpha, sigma_hat)`: the share of signal and of noise in what the network sees."""

    @abstractmethod
    def clock(self, sigma: float) -> tuple[float, float]:
        """Return `(scale, time)`: where `scale * noisy` has the slope `(scale * noisy - denoised) / time` in `time`.

        Solvers that average slopes do so in this time, in which the paths of the schedule are least bent.
        """


@final
class VariancePreserving(Schedule):
    """Mixes with `alpha² + sigma_hat² = 1` (arXiv 2006.11239): network input = sigma coordinates / √(1 + σ²)."""

    spacing: ClassVar[Literal["linspace", "even"]] = "linspace"

    def __init__(self, alphas_cumprod: Sequence[float]) -> None:
        table = [math.sqrt((1 - alpha) / alpha) for alpha in alphas_cumprod]
        super().__init__(table, [float(index) for index in range(len(table))])
        self.alphas_cumprod: Float64[Tensor, " timesteps"] = torch.tensor(
            alphas_cumprod, dtype=torch.float64, device="cpu"
        )
        self._table = table

    def at(self, position: float) -> float:
        """Interpolate the table linearly in sigma, as Euler solvers of the literature do."""
        position = min(max(position, 0.0), self.num_train_timesteps - 1.0)
        below = min(int(position), self.num_train_timesteps - 2)
        weight = position - below
        return (1 - weight) * self._table[below] + weight * self._table[below + 1]

    def sigma(self, timestep: float) -> float:
        """Return the sigma of what the network is told: its place in the table."""
        return self.at(timestep)

    def timestep(self, sigma: float) -> float:
        """Invert `sigma`; exact at the table's entries, clamped to the table's ends."""
        below = min(max(bisect_right(self._table, sigma) - 1, 0), self.num_train_timesteps - 2)
        low, high = self._table[below], self._table[below + 1]
        return below + min(max((sigma - low) / (high - low), 0.0), 1.0)

    def scales(self, sigma: Level) -> tuple[Level, Level]:
        """Return `(1 / √(1 + σ²), σ / √(1 + σ²))`."""
        alpha = (1 + sigma * sigma) ** -0.5
        return alpha, sigma * alpha

    def clock(self, sigma: float) -> tuple[float, float]:
        """Return sigma itself, the choice of arXiv 2206.00364, §3.

        A table that ends in nothing but noise has the time of straight paths, in which that end is not endlessly far.
        """
        return (1.0, sigma) if self._table[-1] < ENDLESS else (1 / (1 + sigma), sigma / (1 + sigma))


@final
class RectifiedFlow(Schedule):
    """Mixes along a straight line, `(1 - t) * latent + t * noise` (arXiv 2209.03003), so σ = t / (1 - t).

    The network is told `t * num_train_timesteps`. A shift s moves the grid to t' = s·t / (1 + (s - 1)·t) (arXiv
    2403.03206, eq. 23), which is σ' = s·σ.
    """

    spacing: ClassVar[Literal["linspace", "even"]] = "even"
    LAST: ClassVar[float] = 1 - 1e-4
    """The grid ends just before t = 1, where sigma would be infinite."""

    def __init__(self, num_train_timesteps: int, shift: float) -> None:
        self.shift = shift
        self._count = num_train_timesteps
        sigmas = [self.at(float(index)) for index in range(num_train_timesteps)]
        super().__init__(sigmas, [self.timestep(sigma) for sigma in sigmas])

    def at(self, position: float) -> float:
        """Return the sigma at t = (position + 1) / num_train_timesteps, shifted; -1 is the clean latent."""
        t = self.LAST * min((position + 1) / self._count, 1.0)
        return self.shift * t / (1 - t)

    def sigma(self, timestep: float) -> float:
        """Return t / (1 - t) for the t that the network is told."""
        t = timestep / self._count
        return t / (1 - t)

    def timestep(self, sigma: float) -> float:
        """Return t * num_train_timesteps."""
        return self._count * sigma / (1 + sigma)

    def scales(self, sigma: Level) -> tuple[Level, Level]:
        """Return `(1 - t, t)` = `(1 / (1 + σ), σ / (1 + σ))`."""
        alpha = 1 / (1 + sigma)
        return alpha, sigma * alpha

    def clock(self, sigma: float) -> tuple[float, float]:
        """Return t, in which the network's input moves along a straight line."""
        return self.scales(sigma)


class ScheduleSpec(Spec, ABC):
    """The noise levels that a network is trained on."""

    kind: ClassVar[str] = "schedule"

    @abstractmethod
    def build(self) -> Schedule:
        """Build the tables."""


class BetasSpec(ScheduleSpec, ABC):
    """A variance-preserving schedule given by the variance that each timestep adds."""

    num_train_timesteps: NumTimesteps = 1000
    """Noise levels in the table."""
    terminal_sigma: Annotated[float, Field(ge=1, le=MAX_SIGMA)] | None = None
    """Noise-to-signal ratio of the last timestep; the table is stretched as if it were infinite, so that sampling may
    start from pure noise (1e8; not for epsilon). Left out: what the betas amount to."""

    @abstractmethod
    def _betas(self) -> list[float]:
        """Return the variance that each timestep adds."""

    def _alphas_cumprod(self) -> list[float]:
        table = _cumulative(self._betas())
        return table if self.terminal_sigma is None else _stretch(table, self.terminal_sigma)

    @model_validator(mode="after")
    def _check_range(self) -> Self:
        depth = -sum(math.log1p(-beta) for beta in self._betas()) / 2
        if depth > math.log(MAX_SIGMA):
            raise ValueError(
                f"betas up to {self._betas()[-1]:.3g} over {self.num_train_timesteps} timesteps bury the signal "
                f"{math.exp(min(depth, 700.0)):.0e} times deep in noise, at most {MAX_SIGMA:.0e}: "
                "lower beta_end or num_train_timesteps"
            )
        table = _cumulative(self._betas())
        if flat := [index for index, (one, next_one) in enumerate(pairwise([1.0, *table])) if next_one >= one]:
            raise ValueError(f"timestep {flat[0]} adds no noise that float64 can tell; take fewer num_train_timesteps")
        *_, before, last = self._alphas_cumprod()
        if last >= before:
            raise ValueError(f"terminal_sigma must be above {(1 / before - 1) ** 0.5:.0f}, that of the timestep before")
        return self

    def build(self) -> VariancePreserving:
        """Build the tables in float64."""
        return VariancePreserving(self._alphas_cumprod())


class _BetaRangeSpec(BetasSpec, ABC):
    """Betas between two ends."""

    beta_start: Beta = 1e-4
    """Variance added by the first timestep, in (0, 1)."""
    beta_end: Beta = 0.02
    """Variance added by the last timestep, in (0, 1)."""


@final
class LinearScheduleSpec(_BetaRangeSpec):
    """Betas that grow linearly (arXiv 2006.11239, §4)."""

    type: Literal["linear"] = "linear"

    def _betas(self) -> list[float]:
        return _linspace(self.beta_start, self.beta_end, self.num_train_timesteps, lambda beta: beta)


@final
class ScaledLinearScheduleSpec(_BetaRangeSpec):
    """Betas whose square root grows linearly (arXiv 2112.10752, released code)."""

    type: Literal["scaled_linear"] = "scaled_linear"

    def _betas(self) -> list[float]:
        start, end = math.sqrt(self.beta_start), math.sqrt(self.beta_end)
        return _linspace(start, end, self.num_train_timesteps, lambda root: root * root)


@final
class FlowScheduleSpec(ScheduleSpec):
    """Straight paths between latent and noise (arXiv 2209.03003), with the grid shift of arXiv 2403.03206."""

    type: Literal["flow"] = "flow"
    shift: Annotated[float, Field(ge=0.01, le=100)] = 1.0
    """Moves the grid towards noise if above 1: sigma is multiplied by it; in [0.01, 100]."""
    num_train_timesteps: NumTimesteps = 1000
    """Noise levels in the table; the network is told t times this."""

    def build(self) -> RectifiedFlow:
        """Build the tables in float64."""
        return RectifiedFlow(self.num_train_timesteps, self.shift)


def _linspace(start: float, end: float, count: int, bend: Callable[[float], float]) -> list[float]:
    step = (end - start) / (count - 1)
    return [bend(start + index * step) for index in range(count)]


def _cumulative(betas: Sequence[float]) -> list[float]:
    """Return the share of signal variance left after each timestep (arXiv 2006.11239, eq. 4)."""
    table, product = [], 1.0
    for beta in betas:
        product *= 1 - beta
        table.append(product)
    return table


def _stretch(alphas_cumprod: Sequence[float], terminal_sigma: float) -> list[float]:
    """Move the root of the last entry to zero and the others along (arXiv 2305.08891, algorithm 1), then set the last.

    An infinite sigma has no place in sigma coordinates; 1e8 cannot be told from it in float32.
    """
    roots = [math.sqrt(alpha) for alpha in alphas_cumprod]
    first, last = roots[0], roots[-1]
    stretched = [((root - last) * first / (first - last)) ** 2 for root in roots]
    return [*stretched[:-1], 1 / (1 + terminal_sigma**2)]
