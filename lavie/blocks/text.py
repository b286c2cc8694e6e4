"""Text encoders: prompts to the context that the denoiser attends to; here CLIP's text transformer."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self, final

import torch
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from lavie.blocks.embedding import normal_embedding
from lavie.blocks.self_attention import SelfAttention
from lavie.blocks.tokenizer import ClipBpeSpec, Tokenizer, TokenizerSpec
from lavie.spec import Count, Spec, Width


class TextEncoder(nn.Module, ABC):
    """Turns prompts into a context of `max_tokens` tokens of width `context_dim`."""

    context_dim: int
    max_tokens: int

    @abstractmethod
    def forward(self, token_ids: Int[Tensor, "b l"]) -> Float[Tensor, "b l d"]:
        """Return the context of token numbers."""

    @abstractmethod
    def tokenize(self, prompts: Sequence[str]) -> Int[Tensor, "b l"]:
        """Return the token numbers of prompts, padded and cut to `max_tokens`, on the CPU."""

    @abstractmethod
    def encode(self, prompts: Sequence[str]) -> Float[Tensor, "b l d"]:
        """Return the context of prompts, on the encoder's device."""

    @abstractmethod
    def lost_words(self, prompt: str) -> list[str]:
        """Return the words of a prompt that do not reach the context: cut off, or unknown to the vocabulary."""

    if TYPE_CHECKING:

        def __call__(self, token_ids: Tensor) -> Tensor: ...


class TextEncoderSpec(Spec, ABC):
    """A network that turns prompts into context."""

    kind: ClassVar[str] = "text_encoder"

    @abstractmethod
    def build(self) -> TextEncoder:
        """Build it with fresh weights."""


@final
class QuickGelu(nn.Module):
    """x·sigmoid(1.702·x), the approximation of GELU that the first CLIP networks were trained with."""

    def forward(self, x: Float[Tensor, "b l d"]) -> Float[Tensor, "b l d"]:
        """Return the activation."""
        return x * torch.sigmoid(1.702 * x)


@final
class ClipLayer(nn.Module):
    """One pre-norm transformer layer: causal self-attention, then two linear maps around an activation."""

    def __init__(self, width: int, *, num_heads: int, activation: nn.Module) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = SelfAttention(width, num_heads=num_heads)
        self.norm2 = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 4 * width)
        self.activation = activation
        self.contract = nn.Linear(4 * width, width)

    def forward(self, x: Float[Tensor, "b l d"], mask: Float[Tensor, "l l"]) -> Float[Tensor, "b l d"]:
        """Return the tokens after both sublayers."""
        x = x + self.attention(self.norm1(x), mask)
        return x + self.contract(self.activation(self.expand(self.norm2(x))))


@final
class ClipText(TextEncoder):
    """CLIP's text transformer up to the final norm (arXiv 2103.00020, §2.4); every token is kept, none pooled.

    Padding is not masked, as in Stable Diffusion: the causal mask keeps it from the tokens before it.

    Raises:
        ValueError: if the tokenizer has more tokens than the table has rows.
    """

    def __init__(self, spec: "ClipTextSpec", tokenizer: Tokenizer) -> None:
        super().__init__()
        vocab_size = tokenizer.vocab_size if spec.vocab_size is None else spec.vocab_size
        if tokenizer.vocab_size > vocab_size:
            raise ValueError(f"vocab_size is {vocab_size}, but the tokenizer has {tokenizer.vocab_size} tokens")
        self.context_dim, self.max_tokens = spec.width, spec.max_tokens
        self.tokenizer = tokenizer
        self.token_embedding = normal_embedding(vocab_size, spec.width)
        self.position_embedding = normal_embedding(spec.max_tokens, spec.width)
        activations = {"quick_gelu": QuickGelu(), "gelu": nn.GELU()}
        self.layers = nn.ModuleList(
            ClipLayer(spec.width, num_heads=spec.num_heads, activation=activations[spec.activation])
            for _ in range(spec.num_layers)
        )
        self.final_norm = nn.LayerNorm(spec.width)

    def forward(self, token_ids: Int[Tensor, "b l"]) -> Float[Tensor, "b l d"]:
        """Return the last hidden state after the final norm.

        Raises:
            ValueError: if there are more than `max_tokens` tokens.
        """
        length = token_ids.shape[1]
        if length > self.max_tokens:
            raise ValueError(f"{length} tokens, but this encoder takes at most {self.max_tokens}")
        x = self.token_embedding(token_ids) + self.position_embedding.weight[:length]
        mask = torch.full((length, length), float("-inf"), dtype=x.dtype, device=x.device).triu(1)
        for layer in self.layers:
            x = layer(x, mask)
        return self.final_norm(x)

    def tokenize(self, prompts: Sequence[str]) -> Int[Tensor, "b l"]:
        """Return the token numbers of prompts, padded and cut to `max_tokens`, on the CPU."""
        rows = [self.tokenizer.encode(prompt, self.max_tokens) for prompt in prompts]
        return torch.tensor(rows, dtype=torch.long).reshape(len(rows), self.max_tokens)

    def encode(self, prompts: Sequence[str]) -> Float[Tensor, "b l d"]:
        """Return the context of prompts, on the encoder's device."""
        return self(self.tokenize(prompts).to(self.final_norm.weight.device))

    def lost_words(self, prompt: str) -> list[str]:
        """Return the words of a prompt that do not reach the context: cut off, or unknown to the vocabulary."""
        return self.tokenizer.lost_words(prompt, self.max_tokens)


@final
class ClipTextSpec(TextEncoderSpec):
    """CLIP's text encoder; the defaults are ViT-L/14's, as Stable Diffusion 1 uses it."""

    type: Literal["clip"] = "clip"
    width: Width = 768
    """Width of a token, and of the context."""
    num_layers: Count = 12
    """Transformer layers."""
    num_heads: Count = 12
    """Attention heads; divides the width."""
    activation: Literal["quick_gelu", "gelu"] = "quick_gelu"
    """Activation inside the layers: quick_gelu in OpenAI's networks, gelu in OpenCLIP's."""
    vocab_size: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Rows of the token table; by default as many as the tokenizer has tokens."""
    max_tokens: Annotated[int, Field(ge=3, le=4096)] = 77
    """Tokens of a prompt, with start and end; longer prompts are cut, shorter ones padded."""
    tokenizer: TokenizerSpec = ClipBpeSpec()
    """How prompts become token numbers."""

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        if self.width % self.num_heads:
            raise ValueError(f"width: {self.width} cannot be split into num_heads = {self.num_heads} heads")
        return self

    def build(self) -> ClipText:
        """Build it with fresh weights."""
        return ClipText(self, self.tokenizer.build())
