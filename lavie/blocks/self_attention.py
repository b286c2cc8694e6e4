"""Self-attention with biased projections, as CLIP and Stable Diffusion's autoencoder have it."""

from typing import final

from jaxtyping import Float
from torch import Tensor, nn

from lavie.blocks.attention import attend, check_heads, join_heads, split_heads


@final
class SelfAttention(nn.Module):
    """Multi-head self-attention whose four projections all have biases.

    Raises:
        ValueError: if `channels` cannot be split into `num_heads` equal heads.
    """

    def __init__(self, channels: int, *, num_heads: int = 1) -> None:
        super().__init__()
        check_heads(channels, num_heads)
        self.num_heads = num_heads
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Float[Tensor, "n l c"], bias: Float[Tensor, "*k l l"] | None = None) -> Float[Tensor, "n l c"]:
        """Attend inside each sequence; `bias` is added to the logits."""
        query, key, value = (split_heads(project(x), self.num_heads) for project in (self.query, self.key, self.value))
        return self.out(join_heads(attend(query, key, value, bias)))
