"""Multi-head attention, and the one boundary through which every attention kernel is called."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from lavie.blocks.base import Position
from lavie.blocks.device import device_type
from lavie.blocks.kernels import Kernel, kernel_for

MAX_BATCH = 65535
"""Samples that one launch of a fused CUDA kernel takes: one block of threads each, and a grid has no more."""


def attend(
    query: Float[Tensor, "n k q d"],
    key: Float[Tensor, "n k s d"],
    value: Float[Tensor, "n k s d"],
    bias: Float[Tensor, "*k q s"] | None = None,
) -> Float[Tensor, "n k q d"]:
    """Return softmax(q·kᵀ/√d + bias)·v: scaled dot-product attention (arXiv 1706.03762, eq. 1).

    Computed by the kernel in use (`lavie.blocks.kernels`); all give the same numbers up to rounding.
    """
    if bias is not None:
        # Fused kernels take a bias only if it has four axes and the last one lies in one piece.
        bias = bias.reshape(1, -1, *bias.shape[-2:]).contiguous()
    kernel = kernel_for(query)
    if device_type(query) == "cuda" and len(query) > MAX_BATCH:
        return in_pieces(kernel, query, key, value, bias)
    return kernel(query, key, value, bias)


def in_pieces(kernel: Kernel, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
    """Call a kernel for at most `MAX_BATCH` samples at a time: attention along the frames of a large video has more."""
    pieces = zip(*(torch.split(each, MAX_BATCH) for each in (query, key, value)), strict=True)
    return torch.cat([kernel(q, k, v, bias) for q, k, v in pieces])


def check_heads(channels: int, num_heads: int) -> None:
    """Refuse heads that would differ in width.

    Raises:
        ValueError: naming both numbers.
    """
    if channels % num_heads:
        raise ValueError(f"{channels} channels cannot be split into {num_heads} heads of equal size")


def split_heads(x: Float[Tensor, "n l c"], num_heads: int) -> Float[Tensor, "n k l d"]:
    """Give each head its channels."""
    return rearrange(x, "n l (k d) -> n k l d", k=num_heads)


def join_heads(heads: Float[Tensor, "n k l d"]) -> Float[Tensor, "n l c"]:
    """Undo `split_heads`."""
    return rearrange(heads, "n k l d -> n l (k d)")


class Attention(nn.Module):
    """Multi-head attention with bias-free query, key and value projections, as in Stable Diffusion's transformers.

    Raises:
        ValueError: if `channels` cannot be split into `num_heads` equal heads.
    """

    def __init__(self, channels: int, *, num_heads: int, context_dim: int | None = None) -> None:
        super().__init__()
        check_heads(channels, num_heads)
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
        return (
            split_heads(self.query(x), self.num_heads),
            split_heads(self.key(context), self.num_heads),
            split_heads(self.value(context), self.num_heads),
        )

    def merge(self, heads: Float[Tensor, "n k q h"]) -> Float[Tensor, "n q c"]:
        """Join the heads and mix them with the output projection."""
        return self.out(join_heads(heads))
