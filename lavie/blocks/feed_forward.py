"""The feed-forward sublayer of transformers."""

from typing import final

import torch.nn.functional as F  # noqa: N812
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from lavie.blocks.base import Conditioning, SpatialLayer


@final
class FeedForward(SpatialLayer):
    """Position-wise feed-forward with a gated GELU (arXiv 2002.05202, §2: GEGLU), exact erf form; hidden width 4c."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.expand = nn.Linear(channels, 8 * channels)
        self.contract = nn.Linear(4 * channels, channels)

    def forward(self, x: Float[Tensor, "b c f h w"], cond: Conditioning) -> Float[Tensor, "b c f h w"]:
        """Return contract(value · GELU(gate))."""
        value, gate = self.expand(rearrange(x, "b c f h w -> b f h w c")).chunk(2, dim=-1)
        return rearrange(self.contract(value * F.gelu(gate)), "b f h w c -> b c f h w")
