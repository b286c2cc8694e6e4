"""The feed-forward sublayer of transformers."""

from typing import final

import torch
import torch.nn.functional as F  # noqa: N812
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from lavie.blocks.base import Conditioning, SpatialLayer
from lavie.blocks.device import device_type

TOKENS_AT_ONCE = {"cpu": 1024}
"""Tokens whose hidden values are alive at a time without gradients: on a CPU as many as its caches hold."""
_TOKENS_ELSEWHERE = 1 << 16


@final
class FeedForward(SpatialLayer):
    """Position-wise feed-forward with a gated GELU (arXiv 2002.05202, §2: GEGLU), exact erf form; hidden width 4c.

    Hidden values take 16 times the memory of the tokens. Without gradients they are computed piece by piece.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.expand = nn.Linear(channels, 8 * channels)
        self.contract = nn.Linear(4 * channels, channels)

    def forward(self, x: Float[Tensor, "b c f h w"], cond: Conditioning) -> Float[Tensor, "b c f h w"]:
        """Return contract(value · GELU(gate))."""
        b, _, f, h, w = x.shape
        tokens = rearrange(x, "b c f h w -> (b f h w) c")
        at_once = TOKENS_AT_ONCE.get(device_type(x), _TOKENS_ELSEWHERE)
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or len(tokens) <= at_once:
            update = self._gated(tokens)
        else:
            update = torch.cat([self._gated(piece) for piece in torch.split(tokens, at_once)])
        return rearrange(update, "(b f h w) c -> b c f h w", b=b, f=f, h=h, w=w)

    def _gated(self, tokens: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
        value, gate = self.expand(tokens).chunk(2, dim=-1)
        return self.contract(value * F.gelu(gate))
