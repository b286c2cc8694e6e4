"""Biases on attention logits along frames: T5-style relative positions."""

import math
from functools import partial
from typing import Annotated, Literal, final

import torch
from einops import rearrange
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from lavie.blocks.base import Bias, BiasSpec, Site
from lavie.blocks.embedding import normal_embedding
from lavie.blocks.tables import FrameTable


def relative_buckets(num_frames: int, *, num_buckets: int, max_distance: int) -> Int[Tensor, "f f"]:
    """Return the bucket of every (query, key) pair (arXiv 1910.10683, §2.1; bidirectional).

    The upper half of the buckets is for keys later than the query. In each half, the first half again holds one
    distance each and the second spaces distances logarithmically up to `max_distance`.
    """
    frames = torch.arange(num_frames)
    behind = frames[:, None] - frames[None, :]
    per_side = num_buckets // 2
    exact = per_side // 2
    distance = behind.abs()
    scaled = torch.log(distance.clamp(min=1).float() / exact) / math.log(max_distance / exact)
    far = (exact + (scaled * (per_side - exact)).long()).clamp(max=per_side - 1)
    return torch.where(behind < 0, per_side, 0) + torch.where(distance < exact, distance, far)


@final
class RelativeBias(Bias):
    """A learned bias for every head and every bucket of signed frame distance."""

    def __init__(self, num_heads: int, *, num_buckets: int, max_distance: int) -> None:
        super().__init__()
        self.table = normal_embedding(num_buckets, num_heads)
        self._buckets = FrameTable(partial(relative_buckets, num_buckets=num_buckets, max_distance=max_distance))

    def forward(self, num_frames: int) -> Float[Tensor, "k f f"]:
        """Look up the bias of every pair of frames."""
        return rearrange(self.table(self._buckets(num_frames, self.table.weight.device)), "q s k -> k q s")


@final
class RelativeBiasSpec(BiasSpec):
    """T5-style relative-position bias: near distances one bucket each, far ones in logarithmic buckets."""

    type: Literal["relative"] = "relative"
    num_buckets: Annotated[int, Field(ge=4, le=4096, multiple_of=4)] = 32
    """Buckets for both directions together."""
    max_distance: Annotated[int, Field(ge=2, le=65536)] = 32
    """Frames beyond which all distances share the last bucket."""

    def build(self, site: Site) -> RelativeBias:
        """Build a table with one column for each head."""
        if self.max_distance <= self.num_buckets // 4:
            raise ValueError(f"max_distance {self.max_distance} must exceed num_buckets / 4 = {self.num_buckets // 4}")
        return RelativeBias(site.num_heads, num_buckets=self.num_buckets, max_distance=self.max_distance)


@final
class NoBiasSpec(BiasSpec):
    """No bias on the logits."""

    type: Literal["none"] = "none"

    def build(self, site: Site) -> None:
        """Add nothing."""
