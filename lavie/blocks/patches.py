"""Patches of pixels as latents: exact, without parameters, for diffusion on pixels themselves (arXiv 2511.13720)."""

from typing import Annotated, Literal, final

import torch
from einops import rearrange
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from lavie.blocks.autoencoder import Autoencoder, AutoencoderSpec
from lavie.spec import Positive

LOG_VARIANCE = -30.0
"""Of the posterior, which has no spread: as small as `AutoencoderKL` clamps to."""


@final
class Patches(Autoencoder):
    """Every square of `factor` × `factor` pixels is one position of the latent, with three channels per pixel."""

    scale: Tensor

    def __init__(self, factor: int, scaling_factor: float) -> None:
        super().__init__()
        self.factor = factor
        self.latent_channels = 3 * factor**2
        self.scaling_factor = scaling_factor
        self.register_buffer("scale", torch.tensor(scaling_factor))

    def moments(
        self, video: Float[Tensor, "b 3 f h w"]
    ) -> tuple[Float[Tensor, "b c f p q"], Float[Tensor, "b c f p q"]]:
        """Return the patches, and a log variance that leaves no spread."""
        mean = rearrange(video, "b c f (p s) (q t) -> b (c s t) f p q", s=self.factor, t=self.factor)
        return mean, torch.full_like(mean, LOG_VARIANCE)

    def encode(
        self, video: Float[Tensor, "b 3 f h w"], generator: torch.Generator | None = None
    ) -> Float[Tensor, "b c f p q"]:
        """Return the patches times `scaling_factor`; a generator changes nothing."""
        return self.moments(video)[0] * self.scale

    def decode(self, latent: Float[Tensor, "b c f p q"]) -> Float[Tensor, "b 3 f h w"]:
        """Put the patches together again."""
        pixels = latent / self.scale
        return rearrange(pixels, "b (c s t) f p q -> b c f (p s) (q t)", s=self.factor, t=self.factor)


@final
class PatchesSpec(AutoencoderSpec):
    """Latents are patches of pixels: nothing is lost, and nothing is learned."""

    type: Literal["patches"] = "patches"
    factor: Annotated[int, Field(ge=1, le=64)] = 4
    """Pixels per latent position and side; the latent has 3·factor² channels."""
    scaling_factor: Positive = 1.0
    """Makes the latent's standard deviation about 1."""

    def build(self) -> Patches:
        """Build it."""
        return Patches(self.factor, self.scaling_factor)
