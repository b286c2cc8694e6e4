"""Dynamic thresholding (arXiv 2205.11487, §2.3): guided answers pulled back into the range of the data."""

from typing import Annotated, Literal, final

import torch
from einops import rearrange
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from lavie.samplers.base import Denoise
from lavie.samplers.guidance import ClassifierFreeSpec, Guidance, GuidanceSpec, Perturb
from lavie.spec import Positive


@final
class DynamicThresholding(Guidance):
    """Clamps another guidance's answer where its outliers begin, and shrinks it to a bound."""

    def __init__(self, inner: Guidance, quantile: float, bound: float) -> None:
        self.inner = inner
        self.quantile = quantile
        self.bound = bound

    def __call__(self, conditional: Denoise, unconditional: Denoise, *, perturbed: Perturb | None = None) -> Denoise:
        """Wrap the inner guidance."""
        inner = self.inner(conditional, unconditional, perturbed=perturbed)

        def guided(noisy: Float[Tensor, "b c f h w"], sigma: float) -> Float[Tensor, "b c f h w"]:
            return threshold(inner(noisy, sigma), self.quantile, self.bound)

        return guided


def threshold(
    x: Float[Tensor, "b c f h w"], quantile: float, bound: float, most: float | None = None
) -> Float[Tensor, "b c f h w"]:
    """Clamp each video at a quantile of its own absolute values, and scale that down to `bound` (§2.3).

    A video whose quantile is below `bound` is only clamped to it; none is clamped beyond `most`.
    """
    limit = rearrange(_quantile(x.abs().flatten(1), quantile).clamp(bound, most), "b -> b 1 1 1 1")
    return x.clamp(-limit, limit) * (bound / limit)


def _quantile(x: Float[Tensor, "b n"], quantile: float) -> Float[Tensor, " b"]:
    """Return a quantile of each row, interpolated linearly; `torch.quantile` refuses rows as long as a latent."""
    place = quantile * (x.shape[1] - 1)
    below = int(place)
    low = torch.kthvalue(x, below + 1, dim=1).values
    return low if place == below else low.lerp(torch.kthvalue(x, below + 2, dim=1).values, place - below)


@final
class DynamicThresholdingSpec(GuidanceSpec):
    """Dynamic thresholding: against saturation; made for pixels, whose range is known, rather than for latents."""

    type: Literal["dynamic_thresholding"] = "dynamic_thresholding"
    inner: GuidanceSpec = ClassifierFreeSpec()
    """The guidance whose answer is bounded."""
    quantile: Annotated[float, Field(gt=0, le=1)] = 0.995
    """Share of a video's values that stays below the clamp, in (0, 1]."""
    bound: Positive = 1.0
    """Largest absolute value of the result: 1 for pixels; for latents, the largest that they take."""

    def build(self) -> DynamicThresholding:
        """Build it."""
        return DynamicThresholding(self.inner.build(), self.quantile, self.bound)
