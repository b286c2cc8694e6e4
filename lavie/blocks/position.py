"""Positions along frames: rotary embedding."""

from functools import partial
from typing import Annotated, Literal, final

import torch
from einops import rearrange
from jaxtyping import Float, Float32, Float64
from pydantic import Field
from torch import Tensor

from lavie.blocks.base import Position, PositionSpec, Site
from lavie.blocks.tables import FrameTable
from lavie.spec import Positive


def rotary_frequencies(dim: int, base: float = 10000.0) -> Float64[Tensor, " half"]:
    """Return base^(-2i/dim) for i = 0 … dim/2 - 1 (arXiv 2104.09864, eq. 15)."""
    return base ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)


def rotary_turns(num_frames: int, *, dim: int, base: float = 10000.0) -> Float32[Tensor, "f half two"]:
    """Return cosine and sine of frame index times frequency."""
    angles = torch.outer(torch.arange(num_frames, dtype=torch.float32), rotary_frequencies(dim, base).float())
    return torch.stack((angles.cos(), angles.sin()), dim=-1)


def rotate(x: Float[Tensor, "n k f d"], turns: Float[Tensor, "f half two"]) -> Float[Tensor, "n k f d"]:
    """Turn the first 2·half channels of every head, in interleaved pairs, by the (cosine, sine) of their frame.

    (a, b) → (a·cos - b·sin, b·cos + a·sin) for channels 2i and 2i+1 (arXiv 2104.09864, eq. 34); the others pass
    through. Computed in float32 or better.
    """
    # Frames before heads: the order in which projections leave memory, and in which heads are joined without a copy.
    tokens = rearrange(x, "n k f d -> n f k d")
    turned, rest = tokens.tensor_split([2 * turns.shape[1]], dim=-1)
    pairs = rearrange(turned, "n f k (half two) -> n f k half two", two=2)
    pairs = pairs.to(torch.promote_types(x.dtype, turns.dtype))
    turned = rearrange(
        _turn(pairs, rearrange(turns, "f half two -> f 1 half two")), "n f k half two -> n f k (half two)"
    )
    turned = turned.to(x.dtype)
    tokens = torch.cat((turned, rest), dim=-1) if rest.shape[-1] else turned
    return rearrange(tokens, "n f k d -> n k f d")


def _turn(pairs: Float[Tensor, "n f k half two"], turns: Float[Tensor, "f 1 half two"]) -> Tensor:
    """Multiply pairs as complex numbers: one pass over memory, or written out for compilers, which fuse that."""
    if torch.compiler.is_compiling():
        (a, b), (cos, sin) = pairs.unbind(-1), turns.unbind(-1)
        return torch.stack((a * cos - b * sin, b * cos + a * sin), dim=-1)
    if pairs.stride(-1) != 1 or any(stride % 2 for stride in (*pairs.stride()[:-1], pairs.storage_offset())):
        pairs = pairs.contiguous()  # heads of odd width: memory that cannot be seen as complex numbers
    return torch.view_as_real(torch.view_as_complex(pairs) * torch.view_as_complex(turns))


@final
class RotaryEmbedding(Position):
    """Rotary position embedding over frames (arXiv 2104.09864; in LaVie arXiv 2309.15103, §3.2).

    Turns by the same angles whatever the dtype of the network, which no cast of the network reaches; the official base
    script halves them too.
    """

    def __init__(self, dim: int, base: float) -> None:
        super().__init__()
        self._turns = FrameTable(partial(rotary_turns, dim=dim, base=base))

    def forward(self, x: Float[Tensor, "n k f d"]) -> Float[Tensor, "n k f d"]:
        """Rotate by frame index times frequency."""
        return rotate(x, self._turns(x.shape[2], x.device))


@final
class RotarySpec(PositionSpec):
    """Rotary position embedding: scores depend only on how far two frames are apart."""

    type: Literal["rope"] = "rope"
    dim: Annotated[int, Field(ge=2, le=4096, multiple_of=2)] = 32
    """Channels of each head that are rotated; the others pass through."""
    base: Positive = 10000.0
    """Pair i of the dim / 2 turns by base^(-2i / dim) radians from one frame to the next; larger reaches further."""

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
