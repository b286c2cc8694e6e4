"""Temporal layers of transformers: attention along frames."""

from typing import Literal, final

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from lavie.blocks.attention import Attention
from lavie.blocks.base import (
    Bias,
    BiasSpec,
    Conditioning,
    Position,
    PositionSpec,
    Site,
    TemporalLayer,
    TemporalSpec,
)
from lavie.blocks.bias import NoBiasSpec
from lavie.blocks.position import NoPositionSpec


@final
class TemporalAttention(TemporalLayer):
    """Self-attention along frames, each pixel on its own, bidirectional (arXiv 2309.15103, §3.2)."""

    def __init__(self, attention: Attention, position: Position | None, bias: Bias | None) -> None:
        super().__init__()
        self.attention = attention
        self.position = position
        self.bias = bias
        nn.init.zeros_(attention.out.weight)
        nn.init.zeros_(attention.out.bias)

    def forward(self, x: Float[Tensor, "b c f h w"], cond: Conditioning) -> Float[Tensor, "b c f h w"]:
        """Attend along frames; rotation before bias, both before the softmax.

        Unlike the official initialisation, the output bias starts at zero as well, so that a fresh layer adds nothing.
        """
        b, _, f, h, w = x.shape
        # The one rearrangement in a network that copies: once here, or it would for query, key and value each.
        tokens = rearrange(x, "b c f h w -> (b h w) f c").contiguous()
        bias = None if self.bias is None else self.bias(f).to(x.dtype)
        update = self.attention(tokens, position=self.position, bias=bias)
        return rearrange(update, "(b h w) f c -> b c f h w", b=b, h=h, w=w)


@final
class TemporalAttentionSpec(TemporalSpec):
    """Temporal self-attention with optional positions and bias."""

    type: Literal["attention"] = "attention"
    position: PositionSpec = NoPositionSpec()
    """How queries and keys learn which frame they belong to."""
    bias: BiasSpec = NoBiasSpec()
    """What is added to the logits of every pair of frames."""

    def build(self, site: Site) -> TemporalAttention:
        """Build it with the heads of the host."""
        attention = Attention(site.channels, num_heads=site.num_heads)
        return TemporalAttention(attention, self.position.build(site), self.bias.build(site))


@final
class NoTemporalSpec(TemporalSpec):
    """No temporal layer: frames stay independent in this slot."""

    type: Literal["none"] = "none"

    def build(self, site: Site) -> None:
        """Leave the slot empty."""
