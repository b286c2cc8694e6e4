"""Temporal convolutions: the residual blocks that LaVie's super-resolution network adds to its 2D parent."""

from typing import Annotated, Literal, final

import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from lavie.blocks.base import Conditioning, Site, TemporalLayer, TemporalSpec
from lavie.blocks.layout import flatten_space, unflatten_space
from lavie.blocks.resnet import AddTime, InflatedConv, InflatedResBlock, JointGroupNorm
from lavie.spec import Count, Positive

Kernel = Annotated[int, Field(ge=1, le=63, multiple_of=1)]


class TemporalConv(nn.Module):
    """A convolution along frames only, zero-padded to keep their number; `kernel` is odd.

    The weight has the shape of a 3D kernel (`out in k 1 1`, as published) but runs as a 2D convolution over a view,
    which keeps activations in channels-last order and is several times faster on a CPU.
    """

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        like = nn.Conv3d(channels, channels, (kernel, 1, 1))
        assert like.bias is not None
        self.weight, self.bias = like.weight, like.bias
        self.padding = kernel // 2

    def forward(self, x: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b c f h w"]:
        """Convolve along `f`."""
        out = F.conv2d(flatten_space(x), self.weight.squeeze(-1), self.bias, padding=(self.padding, 0))
        return unflatten_space(out, x.shape[3])


@final
class TemporalConvBlock(TemporalLayer):
    """Two temporal convolutions, each after a group norm over all frames and a SiLU; returns the update."""

    def __init__(self, channels: int, *, kernels: tuple[int, int], norm_groups: int, norm_eps: float) -> None:
        super().__init__()
        self.norm1 = JointGroupNorm(norm_groups, channels, norm_eps)
        self.conv1 = TemporalConv(channels, kernels[0])
        self.norm2 = JointGroupNorm(norm_groups, channels, norm_eps)
        self.conv2 = TemporalConv(channels, kernels[1])
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x: Float[Tensor, "b c f h w"], cond: Conditioning) -> Float[Tensor, "b c f h w"]:
        """Return conv(SiLU(norm(conv(SiLU(norm(x))))))."""
        h = self.conv1(F.silu(self.norm1(x)))
        return self.conv2(F.silu(self.norm2(h)))


class TimedTemporalConvBlock(nn.Module):
    """The temporal residual block with time embedding that opens a spatio-temporal block."""

    def __init__(self, site: Site, *, kernels: tuple[int, int], norm_groups: int, norm_eps: float) -> None:
        super().__init__()
        self.norm1 = JointGroupNorm(norm_groups, site.channels, norm_eps)
        self.conv1 = TemporalConv(site.channels, kernels[0])
        self.time = AddTime(site.time_dim, site.channels)
        self.norm2 = JointGroupNorm(norm_groups, site.channels, norm_eps)
        self.conv2 = TemporalConv(site.channels, kernels[1])

    def forward(self, x: Float[Tensor, "b c f h w"], cond: Conditioning) -> Float[Tensor, "b c f h w"]:
        """Return `x` plus what two temporal convolutions make of it."""
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.time(h, self.norm2, cond)
        return x + self.conv2(F.silu(h))


@final
class SpatioTemporalBlock(TemporalLayer):
    """A temporal and a spatial residual block behind a 1×1 convolution that starts at zero; returns the update."""

    def __init__(self, temporal: TimedTemporalConvBlock, spatial: InflatedResBlock, channels: int) -> None:
        super().__init__()
        self.temporal = temporal
        self.spatial = spatial
        self.out = InflatedConv(channels, channels, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Float[Tensor, "b c f h w"], cond: Conditioning) -> Float[Tensor, "b c f h w"]:
        """Return what this block adds to `x`."""
        return self.out(self.spatial(self.temporal(x, cond), cond))


class ConvNormSpec(TemporalSpec):
    """What both temporal convolution blocks let a user choose; the published network fixes 32 groups and 1e-6."""

    norm_groups: Count = 32
    """Groups of the norms, over all frames jointly; independent of the network's own group count."""
    norm_eps: Positive = 1e-6
    """Epsilon of the norms."""


@final
class TemporalConvBlockSpec(ConvNormSpec):
    """Two convolutions along frames with group norms: `resblock_temporal` of LaVie's super-resolution network."""

    type: Literal["conv"] = "conv"
    kernels: tuple[Kernel, Kernel] = (3, 3)
    """Kernel sizes in frames, odd."""

    def build(self, site: Site) -> TemporalConvBlock:
        """Build it at the host's width."""
        check_kernels(self.kernels)
        return TemporalConvBlock(
            site.channels, kernels=self.kernels, norm_groups=self.norm_groups, norm_eps=self.norm_eps
        )


@final
class SpatioTemporalBlockSpec(ConvNormSpec):
    """Temporal then spatial residual block, both with time embedding: the temporal modules of super-resolution."""

    type: Literal["spatiotemporal_conv"] = "spatiotemporal_conv"
    kernels: tuple[Kernel, Kernel] = (5, 3)
    """Kernel sizes of the temporal convolutions in frames, odd."""

    def build(self, site: Site) -> SpatioTemporalBlock:
        """Build it at the host's width."""
        check_kernels(self.kernels)
        temporal = TimedTemporalConvBlock(
            site, kernels=self.kernels, norm_groups=self.norm_groups, norm_eps=self.norm_eps
        )
        spatial = InflatedResBlock(
            site.channels,
            site.channels,
            time=AddTime(site.time_dim, site.channels),
            norm_groups=self.norm_groups,
            norm_eps=self.norm_eps,
        )
        return SpatioTemporalBlock(temporal, spatial, site.channels)


def check_kernels(kernels: tuple[int, int]) -> None:
    """Refuse even kernels, which would change the number of frames.

    Raises:
        ValueError: naming the kernels.
    """
    if any(kernel % 2 == 0 for kernel in kernels):
        raise ValueError(f"kernels {list(kernels)} must be odd to keep the number of frames")
