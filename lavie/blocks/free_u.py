"""FreeU (arXiv 2309.11497): on the way up a UNet, more of what comes from below and less of what comes across.

What comes up denoises; what comes across brings detail, too much of which drowns it. Nothing is trained or added:
the same weights, weighed otherwise. Works frame by frame.
"""

from typing import Annotated, Self

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from lavie.blocks.layout import Join, join_channels
from lavie.spec import Spec

Factors = Annotated[tuple[Annotated[float, Field(ge=0, le=10)], ...], Field(min_length=1, max_length=16)]


class FreeUSpec(Spec):
    """FreeU: scaling of the way up, level by level from the coarsest one; the defaults are those for SD 1.4."""

    backbone: Factors = (1.3, 1.4)
    """Factors for the first half of the channels from below where their mean is largest, in [0, 10]; 1: unchanged."""
    skip: Factors = (0.9, 0.2)
    """Factors for the lowest frequencies of what comes across, in [0, 10]; 1 leaves them as they are."""

    @model_validator(mode="after")
    def _pairs_up(self) -> Self:
        if len(self.backbone) != len(self.skip):
            raise ValueError(f"backbone has {len(self.backbone)} levels and skip has {len(self.skip)}; give as many")
        return self

    def join(self, depth: int) -> Join:
        """Return how a level joins its skips; `depth` counts levels from the coarsest one."""
        if depth >= len(self.backbone):
            return join_channels
        backbone, skip = self.backbone[depth], self.skip[depth]

        def join(x: Float[Tensor, "b c f h w"], across: Float[Tensor, "b d f h w"]) -> Float[Tensor, "b cd f h w"]:
            return join_channels(scale_backbone(x, backbone), scale_low_frequencies(across, skip))

        return join


def scale_backbone(x: Float[Tensor, "b c f h w"], factor: float) -> Float[Tensor, "b c f h w"]:
    """Scale the first half of the channels by 1 … `factor`, as the mean of all channels is low … high in its frame.

    That is the structure-related scaling of arXiv 2309.11497, eq. 3 to 5.
    """
    mean = x.mean(dim=1, keepdim=True)
    low, high = mean.amin(dim=(-2, -1), keepdim=True), mean.amax(dim=(-2, -1), keepdim=True)
    strength = (mean - low) / (high - low).clamp_min(torch.finfo(x.dtype).tiny)
    half, rest = x.tensor_split([x.shape[1] // 2], dim=1)
    return torch.cat((half * (1 + (factor - 1) * strength), rest), dim=1)


def scale_low_frequencies(x: Float[Tensor, "b c f h w"], factor: float) -> Float[Tensor, "b c f h w"]:
    """Scale the mean of each frame by `factor`, and its slowest waves half as much (arXiv 2309.11497, eq. 6 to 8).

    Like the released code, takes frequencies -1 and 0 along each axis, and the real part of what comes back.
    """
    waves = torch.fft.fft2(x.to(torch.promote_types(x.dtype, torch.float32)))
    low = torch.fft.ifft2(waves * torch.outer(_slowest(x.shape[-2], x), _slowest(x.shape[-1], x))).real
    return x + (factor - 1) * low.to(x.dtype)


def _slowest(size: int, like: Tensor) -> Float[Tensor, " n"]:
    """Return 1 for the frequencies 0 and -1 of a transform, 0 for the others."""
    mask = torch.zeros(size, device=like.device)
    mask[0] = mask[-1] = 1
    return mask
