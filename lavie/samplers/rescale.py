"""Guidance rescale (arXiv 2305.08891, §3.4): guided answers that are no louder than conditional ones."""

from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor

from lavie.samplers.base import Denoise
from lavie.samplers.guidance import ClassifierFreeSpec, Guidance, GuidanceSpec, Perturb, remember
from lavie.spec import Fraction


@final
class Rescale(Guidance):
    """Gives another guidance's answer, in part, the spread that the conditional answer has."""

    def __init__(self, inner: Guidance, share: float) -> None:
        self.inner = inner
        self.share = share

    def __call__(self, conditional: Denoise, unconditional: Denoise, *, perturbed: Perturb | None = None) -> Denoise:
        """Wrap the inner guidance."""
        conditional = remember(conditional)
        inner = self.inner(conditional, unconditional, perturbed=perturbed)

        def guided(noisy: Float[Tensor, "b c f h w"], sigma: float) -> Float[Tensor, "b c f h w"]:
            answer = inner(noisy, sigma)
            return rescale(answer, conditional(noisy, sigma), self.share)

        return guided


def rescale(
    guided: Float[Tensor, "b c f h w"], conditional: Float[Tensor, "b c f h w"], share: float
) -> Float[Tensor, "b c f h w"]:
    """Scale each video towards the standard deviation of its conditional answer (arXiv 2305.08891, §3.4).

    The paper scales the velocity; at pure noise, where over-exposure begins, that is the denoised latent but for its
    sign. The denoised latent has a scale to keep with every other prediction type as well.
    """
    ratio = _spread(conditional) / _spread(guided).clamp_min(torch.finfo(guided.dtype).tiny)
    return guided * (share * ratio + (1 - share))


def _spread(x: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b 1 1 1 1"]:
    return x.std(dim=(1, 2, 3, 4), keepdim=True)


@final
class RescaleSpec(GuidanceSpec):
    """Guidance rescale: keeps high guidance scales from over-exposing, above all with zero terminal SNR."""

    type: Literal["rescale"] = "rescale"
    inner: GuidanceSpec = ClassifierFreeSpec()
    """The guidance whose answer is rescaled."""
    share: Fraction = 0.7
    """How much of the rescaled answer is mixed in, from 0 (nothing changes) to 1."""

    def build(self) -> Rescale:
        """Build it."""
        return Rescale(self.inner.build(), self.share)
