"""Perturbed-attention guidance (arXiv 2403.17377): away from what the network says when it does not look around."""

from typing import Annotated, Literal, final

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from lavie.errors import Fault, SpecError
from lavie.samplers.base import Denoise
from lavie.samplers.guidance import ClassifierFreeSpec, Guidance, GuidanceSpec, Perturb, Place, Scale, remember


@final
class PerturbedAttention(Guidance):
    """Adds to another guidance the step from a hampered answer to the conditional one (arXiv 2403.17377, §4).

    The hampered network puts the identity in the place of some self-attention maps, so that it loses structure and
    keeps appearance.
    """

    def __init__(self, inner: Guidance, scale: float, places: frozenset[Place]) -> None:
        self.inner = inner
        self.scale = scale
        self.places = places

    def __call__(self, conditional: Denoise, unconditional: Denoise, *, perturbed: Perturb | None = None) -> Denoise:
        """Wrap the inner guidance; a scale of 0 calls nothing more than it does."""
        if self.scale == 0:
            return self.inner(conditional, unconditional, perturbed=perturbed)
        if perturbed is None:
            message = "perturbed_attention asks for a network with perturbed attention, which this stage does not offer"
            raise SpecError([Fault("guidance", f"{message}; choose another guidance, such as cfg")])
        conditional = remember(conditional)
        hampered = perturbed(self.places)
        inner = self.inner(conditional, unconditional, perturbed=perturbed)

        def guided(noisy: Float[Tensor, "b c f h w"], sigma: float) -> Float[Tensor, "b c f h w"]:
            without = hampered(noisy, sigma)
            answer = inner(noisy, sigma)
            return answer + self.scale * (conditional(noisy, sigma) - without)

        return guided


@final
class PerturbedAttentionSpec(GuidanceSpec):
    """Perturbed-attention guidance: better structure, with or without text, for one more network call per step."""

    type: Literal["perturbed_attention"] = "perturbed_attention"
    inner: GuidanceSpec = ClassifierFreeSpec()
    """The guidance that it is added to; none for perturbed attention alone."""
    scale: Scale = 3.0
    """Weight of the step away from the hampered network, in [0, 100]; at 0 that is not run at all."""
    places: Annotated[tuple[Place, ...], Field(min_length=1, max_length=17)] = ("mid",)
    """Where self-attention is hampered: mid, or numbers of levels, 0 being the finest."""

    def build(self) -> PerturbedAttention:
        """Build it."""
        return PerturbedAttention(self.inner.build(), self.scale, frozenset(self.places))
