"""Guidance in a limited interval of noise levels (arXiv 2404.07724)."""

from typing import Annotated, Literal, Self, final

from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from lavie.samplers.base import Denoise
from lavie.samplers.guidance import ClassifierFreeSpec, Guidance, GuidanceSpec, Perturb
from lavie.samplers.schedule import MAX_SIGMA
from lavie.spec import NonNegative


@final
class Interval(Guidance):
    """Guides between two noise levels, and takes the conditional answer elsewhere (arXiv 2404.07724, §3)."""

    def __init__(self, inner: Guidance, sigma_min: float, sigma_max: float) -> None:
        self.inner = inner
        self.sigma_min = sigma_min
        self.sigma_max = sigma_max

    def __call__(self, conditional: Denoise, unconditional: Denoise, *, perturbed: Perturb | None = None) -> Denoise:
        """Wrap the inner guidance; outside the interval only `conditional` is called."""
        inner = self.inner(conditional, unconditional, perturbed=perturbed)

        def guided(noisy: Float[Tensor, "b c f h w"], sigma: float) -> Float[Tensor, "b c f h w"]:
            return (inner if self.sigma_min < sigma <= self.sigma_max else conditional)(noisy, sigma)

        return guided


@final
class IntervalSpec(GuidanceSpec):
    """Guidance at middling noise only: harmful above, needless below, and cheaper without."""

    type: Literal["interval"] = "interval"
    inner: GuidanceSpec = ClassifierFreeSpec()
    """The guidance inside the interval."""
    sigma_min: NonNegative = 0.28
    """Noise-to-signal ratio at and below which nothing is guided."""
    sigma_max: Annotated[float, Field(gt=0, le=MAX_SIGMA)] = 5.42
    """Noise-to-signal ratio above which nothing is guided; the paper's choice for Stable Diffusion XL."""

    @model_validator(mode="after")
    def _is_not_empty(self) -> Self:
        if self.sigma_min >= self.sigma_max:
            raise ValueError(f"sigma_min {self.sigma_min:g} must be below sigma_max {self.sigma_max:g}")
        return self

    def build(self) -> Interval:
        """Build it."""
        return Interval(self.inner.build(), self.sigma_min, self.sigma_max)
