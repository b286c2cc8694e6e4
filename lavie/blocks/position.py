"""Positions along frames: rotary embedding."""

from typing import Annotated, Literal, final

import torch
from einops import rearrange
from jaxtyping import Float, Float64
from pydantic import Field
from torch import Tensor

from lavie.blocks.base import Position, PositionSpec, Site
from lavie.spec import Positive


def rotary_frequencies(dim: int, base: float = 10000.0, device: torch.device | None = None) -> Float64[Tensor, " half"]:
    """Return base^(-2i/dim) for i = 0 … dim/2 - 1 (arXiv 2104.09864, eq. 15)."""
    return base ** (-torch.arange(0, dim, 2, dtype=torch.float64, device=device) / dim)


def rotate(x: Float[Tensor, "n k f d"], angles: Float[Tensor, "f half"]) -> Float[Tensor, "n k f d"]:
    """Turn the first 2·half channels of every head, in interleaved pairs, by the angle of their frame.

    (a, b) → (a·cos - b·sin, b·cos + a·sin) for channels 2i and 2i+1 (arXiv 2104.09864, eq. 34); the others pass
    through.
    """
    # Frames before heads: the order in which projections leave memory, and in which heads are joined without a copy.
    tokens = rearrange(x, "n k f d -> n f k d")
    turned, rest = tokens[..., : 2 * angles.shape[-1]], tokens[..., 2 * angles.shape[-1] :]
    a, b = rearrange(turned, "n f k (half two) -> n f k half two", two=2).unbind(-1)
    cos, sin = (rearrange(part.to(x.dtype), "f half -> f 1 half") for part in (angles.cos(), angles.sin()))
    turned = torch.stack((a * cos - b * sin, b * cos + a * sin), dim=-1)
    tokens = torch.cat((rearrange(turned, "n f k half two -> n f k (half two)"), rest), dim=-1)
    return rearrange(tokens, "n f k d -> n k f d")


@final
class RotaryEmbedding(Position):
    """Rotary position embedding over frames (arXiv 2104.09864; in LaVie arXiv 2309.15103, §3.2).

    Angles are computed in float32 whatever the dtype of the network, hence from numbers that no cast of the network
    reaches; the official base script halves them too.
    """

    def __init__(self, dim: int, base: float) -> None:
        super().__init__()
        self.dim, self.base = dim, base

    def forward(self, x: Float[Tensor, "n k f d"]) -> Float[Tensor, "n k f d"]:
        """Rotate by frame index times frequency."""
        frames = torch.arange(x.shape[2], device=x.device, dtype=torch.float32)
        return rotate(x, torch.outer(frames, rotary_frequencies(self.dim, self.base, x.device).float()))


@final
class RotarySpec(PositionSpec):
    """Rotary position embedding: scores depend only on how far two frames are apart."""

    type: Literal["rope"] = "rope"
    dim: Annotated[int, Field(ge=2, le=4096, multiple_of=2)] = 32
    """Channels of each head that are rotated; the others pass through."""
    base: Positive = 10000.0
    """Wavelength of the slowest pair, in units of 2π frames."""

    def build(self, site: Site) -> RotaryEmbedding:
        """Build it; refuses heads narrower than `dim`."""
        head_dim = site.channels // site.num_heads
        if self.dim > head_dim:
            raise ValueError(f"rope rotates {self.dim} channels but a head has {head_dim}; lower dim or num_heads")
        return RotaryEmbedding(self.dim, self.base)


@final
class NoPositionSpec(PositionSpec):
    """No positions: attention cannot tell the order of its tokens."""

    type: Literal["none"] = "none"

    def build(self, site: Site) -> None:
        """Leave queries and keys as they are."""
