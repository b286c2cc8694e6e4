"""The transformer of a UNet: sublayers in a declared order, each with its own norm, between two projections."""

from typing import Annotated, Literal, Self, final

import torch
import torch.nn.functional as F  # noqa: N812
from einops import rearrange
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from lavie.blocks.attention import Attention
from lavie.blocks.base import Conditioning, Site, SpatialLayer, SpatialSpec, TemporalLayer, TemporalSpec
from lavie.blocks.feed_forward import FeedForward
from lavie.blocks.layout import fold_frames, unfold_frames
from lavie.blocks.resnet import check_groups
from lavie.blocks.spatial import SpatialAttentionSpec, TextAttention
from lavie.blocks.temporal import NoTemporalSpec, TemporalAttentionSpec
from lavie.spec import Count, PerLevel, Positive, Spec

Sublayer = Literal["spatial", "text", "temporal", "feed_forward"]


def update_video(
    x: Float[Tensor, "b c f h w"], layer: TemporalLayer, cond: Conditioning, norm: nn.Module | None = None
) -> Float[Tensor, "b c f h w"]:
    """Return `x` with a temporal layer's update added to its video frames; images riding along stay as they are."""
    num_video = x.shape[2] - cond.num_images
    if num_video == 0:
        return x
    if cond.num_images == 0:
        return x + layer(x if norm is None else norm(x), cond)
    video, images = x[:, :, :num_video], x[:, :, num_video:]
    alone = cond.video_only()
    return torch.cat((video + layer(video if norm is None else norm(video), alone), images), dim=2)


@final
class ChannelNorm(nn.Module):
    """Layer norm over the channels of every position of every frame."""

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b c f h w"]:
        """Normalise over `c`."""
        last = rearrange(x, "b c f h w -> b f h w c")
        out = F.layer_norm(last, self.weight.shape, self.weight, self.bias, self.eps)
        return rearrange(out, "b f h w c -> b c f h w")


@final
class FrameGroupNorm(nn.Module):
    """Group norm with statistics of each frame alone, as opposed to those of the residual blocks.

    Raises:
        ValueError: if the channels cannot be split into the groups.
    """

    def __init__(self, groups: int, channels: int, eps: float) -> None:
        super().__init__()
        check_groups(groups, channels)
        like = nn.GroupNorm(groups, channels)
        self.weight, self.bias = like.weight, like.bias
        self.groups, self.eps = groups, eps

    def forward(self, x: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b c f h w"]:
        """Normalise over (channels of a group, h, w)."""
        out = F.group_norm(fold_frames(x), self.groups, self.weight, self.bias, self.eps)
        return unfold_frames(out, x.shape[2])


@final
class PixelProjection(nn.Module):
    """A linear map of the channels of every position; `weight` is a 1×1 kernel or a matrix, as published."""

    def __init__(self, channels: int, kind: Literal["conv", "linear"]) -> None:
        super().__init__()
        like = nn.Conv2d(channels, channels, 1) if kind == "conv" else nn.Linear(channels, channels)
        assert like.bias is not None
        self.weight, self.bias = like.weight, like.bias

    def forward(self, x: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b c f h w"]:
        """Mix channels."""
        last = rearrange(x, "b c f h w -> b f h w c")
        return rearrange(F.linear(last, self.weight.flatten(1), self.bias), "b f h w c -> b c f h w")


@final
class NormedSublayer(nn.Module):
    """One sublayer with the norm before it."""

    def __init__(self, norm: ChannelNorm, layer: SpatialLayer | TemporalLayer) -> None:
        super().__init__()
        self.norm = norm
        self.layer = layer

    def forward(self, x: Float[Tensor, "b c f h w"], cond: Conditioning) -> Float[Tensor, "b c f h w"]:
        """Return `x` plus the layer's update."""
        if isinstance(self.layer, TemporalLayer):
            return update_video(x, self.layer, cond, self.norm)
        return x + self.layer(self.norm(x), cond)


@final
class Transformer(nn.Module):
    """Norm, projection, sublayers, projection, residual.

    The residual is taken after `before`, the temporal layer that some networks put ahead of the transformer.
    """

    def __init__(
        self,
        before: TemporalLayer | None,
        norm: FrameGroupNorm,
        proj_in: PixelProjection,
        sublayers: dict[str, NormedSublayer],
        proj_out: PixelProjection,
    ) -> None:
        super().__init__()
        self.before = before
        self.norm = norm
        self.proj_in = proj_in
        self.sublayers = nn.ModuleDict(sublayers)
        self.proj_out = proj_out

    def forward(self, x: Float[Tensor, "b c f h w"], cond: Conditioning) -> Float[Tensor, "b c f h w"]:
        """Run the sublayers in their order."""
        if self.before is not None:
            x = update_video(x, self.before, cond)
        h = self.proj_in(self.norm(x))
        for sublayer in self.sublayers.values():
            h = sublayer(h, cond)
        return x + self.proj_out(h)


@final
class TransformerSpec(Spec):
    """What stands inside every transformer of a UNet, each part chosen per level where wanted."""

    order: Annotated[tuple[Sublayer, ...], Field(min_length=1, max_length=4)] = (
        "spatial",
        "text",
        "temporal",
        "feed_forward",
    )
    """The sublayers, first to last; one that is not named is not built."""
    num_heads: PerLevel[Count] = PerLevel[Count](everywhere=8)
    """Heads of every attention."""
    spatial: PerLevel[SpatialSpec] = PerLevel[SpatialSpec](everywhere=SpatialAttentionSpec())
    """Attention inside frames."""
    temporal: PerLevel[TemporalSpec] = PerLevel[TemporalSpec](everywhere=TemporalAttentionSpec())
    """Attention, or anything else, along frames."""
    before: PerLevel[TemporalSpec] = PerLevel[TemporalSpec](everywhere=NoTemporalSpec())
    """A temporal layer ahead of the transformer; the transformer's residual is taken after it."""
    projection: Literal["conv", "linear"] = "conv"
    """Shape of the weights of the outer projections: 1×1 kernels (SD 1.x) or matrices (SD 2.x)."""
    norm_eps: Positive = 1e-6
    """Epsilon of the group norm at the head of the transformer."""

    @model_validator(mode="after")
    def _once_each(self) -> Self:
        if len(set(self.order)) != len(self.order):
            raise ValueError(f"order names a sublayer twice: {', '.join(self.order)}")
        return self

    def build(self, site: Site, level: int | None) -> Transformer:
        """Build the transformer of one place; `level` None is the middle block."""
        spatial = self.spatial.at_mid() if level is None else self.spatial.at(level)
        temporal = self.temporal.at_mid() if level is None else self.temporal.at(level)
        before = self.before.at_mid() if level is None else self.before.at(level)
        layers: dict[str, SpatialLayer | TemporalLayer | None] = {}
        for name in self.order:
            match name:
                case "spatial":
                    layers[name] = spatial.build(site)
                case "text":
                    text = Attention(site.channels, num_heads=site.num_heads, context_dim=site.context_dim)
                    layers[name] = TextAttention(text)
                case "temporal":
                    layers[name] = temporal.build(site)
                case "feed_forward":
                    layers[name] = FeedForward(site.channels)
        return Transformer(
            before.build(site),
            FrameGroupNorm(site.norm_groups, site.channels, self.norm_eps),
            PixelProjection(site.channels, self.projection),
            {
                name: NormedSublayer(ChannelNorm(site.channels, 1e-5), layer)
                for name, layer in layers.items()
                if layer is not None
            },
            PixelProjection(site.channels, self.projection),
        )
