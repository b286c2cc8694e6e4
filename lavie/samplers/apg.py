"""Adaptive projected guidance (arXiv 2410.02416): high guidance scales without oversaturation."""

import math
from typing import Annotated, Literal, final

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from lavie.samplers.base import Denoise
from lavie.samplers.guidance import Guidance, GuidanceSpec, Perturb, Scale
from lavie.spec import Fraction, Positive


@final
class AdaptiveProjected(Guidance):
    """Leaves out of the guidance step what merely makes the answer louder (arXiv 2410.02416, §4)."""

    def __init__(self, scale: float, parallel: float, norm_threshold: float | None, momentum: float) -> None:
        self.scale = scale
        self.parallel = parallel
        self.norm_threshold = norm_threshold
        self.momentum = momentum

    def __call__(self, conditional: Denoise, unconditional: Denoise, *, perturbed: Perturb | None = None) -> Denoise:
        """Return the guided `denoise`; its momentum begins anew wherever the noise level rises, as a new pass does."""
        if self.scale <= 1:
            return conditional
        before: list[tuple[float, Tensor]] = []

        def guided(noisy: Float[Tensor, "b c f h w"], sigma: float) -> Float[Tensor, "b c f h w"]:
            without = unconditional(noisy, sigma)
            answer = conditional(noisy, sigma)
            step = answer - without
            if self.momentum and before and sigma <= before[0][0]:
                step = step + self.momentum * before[0][1]
            before[:] = [(sigma, step)]
            return answer + (self.scale - 1) * self._tame(step, answer)

        return guided

    def _tame(self, step: Float[Tensor, "b c f h w"], answer: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b c f h w"]:
        """Bound the length of a step, then weaken its part along the answer."""
        if self.norm_threshold is not None:
            most = self.norm_threshold * math.sqrt(step.shape[2])
            step = step * (most / _dot(step, step).sqrt().clamp_min(most))
        along = _dot(step, answer) / _dot(answer, answer).clamp_min(torch.finfo(answer.dtype).tiny) * answer
        return step - (1 - self.parallel) * along


def _dot(x: Float[Tensor, "b c f h w"], y: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b 1 1 1 1"]:
    return (x * y).sum(dim=(1, 2, 3, 4), keepdim=True)


@final
class AdaptiveProjectedSpec(GuidanceSpec):
    """Adaptive projected guidance: classifier-free guidance whose step is projected, bounded and slowed."""

    type: Literal["apg"] = "apg"
    scale: Scale = 7.5
    """Guidance weight, in [0, 100]; up to 1 the unconditional branch is not run at all."""
    parallel: Fraction = 0.0
    """Share that is kept of the step's part along the conditional answer; 1 is classifier-free guidance."""
    norm_threshold: Positive | None = 15.0
    """Length of the step, for the average frame of a latent, above which it is shortened; left out: never."""
    momentum: Annotated[float, Field(gt=-1, lt=1)] = -0.5
    """Weight of the step before; negative, so that what was just done is done less."""

    def build(self) -> AdaptiveProjected:
        """Build it."""
        return AdaptiveProjected(self.scale, self.parallel, self.norm_threshold, self.momentum)
