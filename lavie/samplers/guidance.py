"""Guidance: turns a conditional and an unconditional `denoise` into one."""

from abc import ABC, abstractmethod
from typing import Annotated, ClassVar, Literal, final

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from lavie.samplers.base import Denoise
from lavie.spec import Spec


class Guidance(ABC):
    """Wraps two `denoise` functions into one; only calls what it needs."""

    @abstractmethod
    def __call__(self, conditional: Denoise, unconditional: Denoise) -> Denoise:
        """Return the guided `denoise`."""


@final
class ClassifierFree(Guidance):
    """Moves from the unconditional answer through the conditional one and beyond (arXiv 2207.12598, eq. 6).

    Works on denoised latents, which is the same as on noise, velocity or flow: all are affine in one another. Where
    `scale` is at most 1 the unconditional branch is never called, as in the official code.
    """

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def __call__(self, conditional: Denoise, unconditional: Denoise) -> Denoise:
        """Return `unconditional + scale * (conditional - unconditional)`, or `conditional` for a scale up to 1."""
        if self.scale <= 1:
            return conditional

        def guided(noisy: Float[Tensor, "b c f h w"], sigma: float) -> Float[Tensor, "b c f h w"]:
            without = unconditional(noisy, sigma)
            return without + self.scale * (conditional(noisy, sigma) - without)

        return guided


@final
class NoGuidance(Guidance):
    """Takes the conditional answer as it is."""

    def __call__(self, conditional: Denoise, unconditional: Denoise) -> Denoise:
        """Return `conditional`."""
        return conditional


class GuidanceSpec(Spec, ABC):
    """How the text steers the sampler."""

    kind: ClassVar[str] = "guidance"

    @abstractmethod
    def build(self) -> Guidance:
        """Build it."""


@final
class ClassifierFreeSpec(GuidanceSpec):
    """Classifier-free guidance (arXiv 2207.12598)."""

    type: Literal["cfg"] = "cfg"
    scale: Annotated[float, Field(ge=0, le=100)] = 7.5
    """Guidance weight, in [0, 100]; up to 1 the unconditional branch is not run at all."""

    def build(self) -> ClassifierFree:
        """Build it."""
        return ClassifierFree(self.scale)


@final
class NoGuidanceSpec(GuidanceSpec):
    """No guidance: one call of the network per step."""

    type: Literal["none"] = "none"

    def build(self) -> NoGuidance:
        """Build it."""
        return NoGuidance()
