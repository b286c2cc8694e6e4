"""Multi-head attention, and the one boundary through which every attention kernel is called."""

import torch.nn.functional as F  # noqa: N812
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from lavie.blocks.base import Position


def attend(
    query: Float[Tensor, "n k q d"],
    key: Float[Tensor, "n k s d"],
    value: Float[Tensor, "n k s d"],
    bias: Float[Tensor, "*k q s"] | None = None,
) -> Float[Tensor, "n k q d"]:
    """Return softmax(q·kᵀ/√d + bias)·v: scaled dot-product attention (arXiv 1706.03762, eq. 1)."""
    if bias is not None and bias.ndim == 3:
        # Fused kernels take a mask for each head only if it has four axes and the last one lies in one piece.
        bias = bias.unsqueeze(0).contiguous()
    return F.scaled_dot_product_attention(query, key, value, attn_mask=bias)


class Attention(nn.Module):
    """Multi-head attention with bias-free query, key and value projections, as in Stable Diffusion's transformers.

    Raises:
        ValueError: if `channels` cannot be split into `num_heads` equal heads.
    """

    def __init__(self, channels: int, *, num_heads: int, context_dim: int | None = None) -> None:
        super().__init__()
        if channels % num_heads:
            raise ValueError(f"{channels} channels cannot be split into {num_heads} heads of equal size")
        self.num_heads = num_heads
        context_dim = channels if context_dim is None else context_dim
        self.query = nn.Linear(channels, channels, bias=False)
        self.key = nn.Linear(context_dim, channels, bias=False)
        self.value = nn.Linear(context_dim, channels, bias=False)
        self.out = nn.Linear(channels, channels)

    def forward(
        self,
        x: Float[Tensor, "n q c"],
        context: Float[Tensor, "n s d"] | None = None,
        *,
        position: Position | None = None,
        bias: Float[Tensor, "*k q s"] | None = None,
    ) -> Float[Tensor, "n q c"]:
        """Attend from `x` to `context` (to itself without one); `position` marks queries and keys."""
        query, key, value = self.project(x, x if context is None else context)
        if position is not None:
            query, key = position(query), position(key)
        return self.merge(attend(query, key, value, bias))

    def alone(self, x: Float[Tensor, "n q c"]) -> Float[Tensor, "n q c"]:
        """Return what comes out if every token attends to itself only: the identity in the place of the softmax."""
        return self.out(self.value(x))

    def project(
        self, x: Float[Tensor, "n q c"], context: Float[Tensor, "m s d"]
    ) -> tuple[Float[Tensor, "n k q h"], Float[Tensor, "m k s h"], Float[Tensor, "m k s h"]]:
        """Return queries of `x`, and keys and values of `context`, split into heads."""
        heads = "n l (k d) -> n k l d"
        return (
            rearrange(self.query(x), heads, k=self.num_heads),
            rearrange(self.key(context), heads, k=self.num_heads),
            rearrange(self.value(context), heads, k=self.num_heads),
        )

    def merge(self, heads: Float[Tensor, "n k q h"]) -> Float[Tensor, "n q c"]:
        """Join the heads and mix them with the output projection."""
        return self.out(rearrange(heads, "n k q d -> n q (k d)"))
