"""Attention inside frames, from frames to their first and previous ones, and from frames to the text."""

from dataclasses import replace
from typing import Literal, final

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from lavie.blocks.attention import Attention, attend
from lavie.blocks.base import Conditioning, Place, Site, SpatialLayer, SpatialSpec
from lavie.errors import Fault, SpecError


@final
class SpatialAttention(SpatialLayer):
    """Self-attention among the positions of each frame."""

    def __init__(self, attention: Attention, place: Place) -> None:
        super().__init__()
        self.attention = attention
        self.place = place

    def forward(self, x: Float[Tensor, "b c f h w"], cond: Conditioning) -> Float[Tensor, "b c f h w"]:
        """Attend inside each frame."""
        b, _, _, h, w = x.shape
        tokens = rearrange(x, "b c f h w -> (b f) (h w) c")
        update = self.attention.alone(tokens) if self.place in cond.blind else self.attention(tokens)
        return rearrange(update, "(b f) (h w) c -> b c f h w", b=b, h=h, w=w)


@final
class SparseCausalAttention(SpatialLayer):
    """Attention from each frame to the first frame and the one before it (LaVie's interpolation network).

    A frame's own tokens are not among its keys, except that frame 0 sees itself twice.
    """

    def __init__(self, attention: Attention, place: Place) -> None:
        super().__init__()
        self.attention = attention
        self.place = place

    def forward(self, x: Float[Tensor, "b c f h w"], cond: Conditioning) -> Float[Tensor, "b c f h w"]:
        """Attend to frame 0 and to frame max(i - 1, 0); projections are computed once per frame."""
        b, _, f, h, w = x.shape
        tokens = rearrange(x, "b c f h w -> (b f) (h w) c")
        update = self.attention.alone(tokens) if self.place in cond.blind else self._look_back(tokens, f)
        return rearrange(update, "(b f) (h w) c -> b c f h w", b=b, h=h, w=w)

    def _look_back(self, tokens: Float[Tensor, "n q c"], num_frames: int) -> Float[Tensor, "n q c"]:
        query, key, value = self.attention.project(tokens, tokens)
        previous = (torch.arange(num_frames, device=tokens.device) - 1).clamp(min=0)

        def gather(heads: Tensor) -> Tensor:
            frames = rearrange(heads, "(b f) k n d -> b f k n d", f=num_frames)
            seen = torch.cat((frames[:, :1].expand_as(frames), frames[:, previous]), dim=3)
            return rearrange(seen, "b f k n d -> (b f) k n d")

        return self.attention.merge(attend(query, gather(key), gather(value)))


@final
class TextAttention(SpatialLayer):
    """Cross-attention from every position to the text.

    The frames of a video are one long query against one set of keys: the text is projected once per video, not once
    per frame. Images riding along attend to their own text each.
    """

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, x: Float[Tensor, "b c f h w"], cond: Conditioning) -> Float[Tensor, "b c f h w"]:
        """Attend to `cond.context`."""
        b, _, f, h, w = x.shape
        tokens = rearrange(x, "b c f h w -> b f (h w) c")
        num_video = f - cond.num_images
        context = cond.context if cond.context.ndim == 4 else cond.context.unsqueeze(1)
        parts = []
        if num_video:
            video = rearrange(tokens[:, :num_video], "b f n c -> b (f n) c")
            parts.append(rearrange(self.attention(video, context[:, 0]), "b (f n) c -> b f n c", f=num_video))
        if cond.num_images:
            images = rearrange(tokens[:, num_video:], "b m n c -> (b m) n c")
            text = rearrange(context[:, 1:], "b m l d -> (b m) l d")
            parts.append(rearrange(self.attention(images, text), "(b m) n c -> b m n c", b=b))
        update = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        return rearrange(update, "b f (h w) c -> b c f h w", h=h, w=w)


def blinded(network: nn.Module, cond: Conditioning, places: frozenset[Place]) -> Conditioning:
    """Return the conditioning under which the self-attention of `network` at `places` sees nothing but each token.

    Raises:
        SpecError: if there is no self-attention at one of them, naming those that have some.
    """
    known = {layer.place for layer in network.modules() if isinstance(layer, SpatialLayer)} - {None}
    if missing := places - known:
        names, others = (", ".join(sorted(map(str, some))) or "nowhere" for some in (missing, known))
        raise SpecError([Fault("guidance", f"the network has no self-attention at {names}; it has some at: {others}")])
    return replace(cond, blind=places)


@final
class SpatialAttentionSpec(SpatialSpec):
    """Self-attention inside each frame."""

    type: Literal["full"] = "full"

    def build(self, site: Site) -> SpatialAttention:
        """Build it with the heads of the host."""
        return SpatialAttention(Attention(site.channels, num_heads=site.num_heads), site.place)


@final
class SparseCausalAttentionSpec(SpatialSpec):
    """Attention from each frame to the first and the previous frame."""

    type: Literal["sparse_causal"] = "sparse_causal"

    def build(self, site: Site) -> SparseCausalAttention:
        """Build it with the heads of the host."""
        return SparseCausalAttention(Attention(site.channels, num_heads=site.num_heads), site.place)


@final
class TextAttentionSpec(SpatialSpec):
    """Cross-attention to the text in the place of spatial self-attention (the ×4 upscaler's outer levels)."""

    type: Literal["text"] = "text"

    def build(self, site: Site) -> TextAttention:
        """Build it with the heads and the context width of the host."""
        return TextAttention(Attention(site.channels, num_heads=site.num_heads, context_dim=site.context_dim))
