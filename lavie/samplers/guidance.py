"""Guidance: turns a conditional and an unconditional `denoise` into one.

Guidances nest: one that changes what another makes holds it as `inner`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Annotated, ClassVar, Literal, final

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from lavie.samplers.base import Denoise
from lavie.spec import Spec

Place = Literal["mid"] | Annotated[int, Field(ge=0, le=15)]
"""Where in a UNet: a level, 0 being the finest, or the middle block."""
Perturb = Callable[[frozenset[Place]], Denoise]
"""`places -> denoise`: the conditional one of a network whose self-attention there sees nothing but its own token."""
Scale = Annotated[float, Field(ge=0, le=100)]


class Guidance(ABC):
    """Wraps two `denoise` functions into one; only calls what it needs. Holds no state: one serves many runs."""

    @abstractmethod
    def __call__(self, conditional: Denoise, unconditional: Denoise, *, perturbed: Perturb | None = None) -> Denoise:
        """Return the guided `denoise` of one run, which owns whatever memory that run needs.

        It asks each branch at most once per call, `conditional` last, all of them with the very tensor that it was
        given itself. A stage may therefore run the network on both texts at once when `unconditional` is asked, and
        keep the other answer until `conditional` is asked with the same tensor. `perturbed` is what a stage lends to
        guidances that compare the network with a hampered one; None where it has none to lend.

        Raises:
            SpecError: if it needs `perturbed`, and the stage or the network has no such thing.
        """


@final
class ClassifierFree(Guidance):
    """Moves from the unconditional answer through the conditional one and beyond (arXiv 2207.12598, eq. 6).

    Works on denoised latents, which is the same as on noise, velocity or flow: all are affine in one another. Where
    `scale` is at most 1 the unconditional branch is never called, as in the official code.
    """

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def __call__(self, conditional: Denoise, unconditional: Denoise, *, perturbed: Perturb | None = None) -> Denoise:
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

    def __call__(self, conditional: Denoise, unconditional: Denoise, *, perturbed: Perturb | None = None) -> Denoise:
        """Return `conditional`."""
        return conditional


def remember(denoise: Denoise) -> Denoise:
    """Return a `denoise` that keeps its last answer, so that nested guidances which need the same one share it."""
    last: list[tuple[Tensor, float, Tensor]] = []

    def remembered(noisy: Float[Tensor, "b c f h w"], sigma: float) -> Float[Tensor, "b c f h w"]:
        if not last or last[0][0] is not noisy or last[0][1] != sigma:
            last[:] = [(noisy, sigma, denoise(noisy, sigma))]
        return last[0][2]

    return remembered


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
    scale: Scale = 7.5
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
