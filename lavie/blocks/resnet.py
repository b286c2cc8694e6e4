"""Residual blocks inflated from 2D: convolutions see single frames, norms see all frames of a sample."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Literal, final

import torch.nn.functional as F  # noqa: N812
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from lavie.blocks.base import Conditioning, ResBlock, ResBlockSpec, Site
from lavie.blocks.layout import fold_frames, stack_frames, unfold_frames, unstack_frames


class InflatedConv(nn.Module):
    """A 2D convolution applied to every frame on its own; the weight keeps its 2D shape (arXiv 2309.15103, §3.2)."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 3, *, stride: int = 1) -> None:
        super().__init__()
        like = nn.Conv2d(in_channels, out_channels, kernel)
        assert like.bias is not None
        self.weight, self.bias = like.weight, like.bias
        self.stride, self.padding = stride, kernel // 2

    def forward(self, x: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b out f p q"]:
        """Convolve each frame."""
        out = F.conv2d(fold_frames(x), self.weight, self.bias, stride=self.stride, padding=self.padding)
        return unfold_frames(out, x.shape[2])


def check_groups(groups: int, channels: int) -> None:
    """Refuse a group norm whose groups would differ in size.

    Raises:
        ValueError: naming both numbers.
    """
    if channels % groups:
        raise ValueError(f"{channels} channels cannot be split into {groups} groups of equal size")


class JointGroupNorm(nn.Module):
    """Group norm whose statistics run over all frames of a sample at once, as in the official network.

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
        """Normalise over (channels of a group, f, h, w)."""
        # Four axes, not five: the shape that the fast channels-last kernel knows.
        out = F.group_norm(stack_frames(x), self.groups, self.weight, self.bias, self.eps)
        return unstack_frames(out, x.shape[2])


class TimeConditioning(nn.Module, ABC):
    """How a residual block takes in the time embedding, around its second norm."""

    @abstractmethod
    def forward(
        self, h: Float[Tensor, "b c f h w"], norm: JointGroupNorm, cond: Conditioning
    ) -> Float[Tensor, "b c f h w"]:
        """Return the normalised activations with the time embedding worked in."""

    if TYPE_CHECKING:

        def __call__(self, h: Tensor, norm: JointGroupNorm, cond: Conditioning) -> Tensor: ...


def project_time(projection: nn.Linear, cond: Conditioning) -> Float[Tensor, "b c #f 1 1"]:
    """Project SiLU(time embedding) to the channels of a block."""
    assert cond.time_embed is not None
    return rearrange(projection(F.silu(cond.time_embed)), "b f c -> b c f 1 1")


@final
class AddTime(TimeConditioning):
    """Add the projected time embedding before the norm (Stable Diffusion)."""

    def __init__(self, time_dim: int, channels: int) -> None:
        super().__init__()
        self.projection = nn.Linear(time_dim, channels)

    def forward(
        self, h: Float[Tensor, "b c f h w"], norm: JointGroupNorm, cond: Conditioning
    ) -> Float[Tensor, "b c f h w"]:
        """Return norm(h + time)."""
        return norm(h + project_time(self.projection, cond))


@final
class ScaleShiftTime(TimeConditioning):
    """Scale and shift the normalised activations by the time embedding (arXiv 2105.05233, §3: adaptive group norm)."""

    def __init__(self, time_dim: int, channels: int) -> None:
        super().__init__()
        self.projection = nn.Linear(time_dim, 2 * channels)

    def forward(
        self, h: Float[Tensor, "b c f h w"], norm: JointGroupNorm, cond: Conditioning
    ) -> Float[Tensor, "b c f h w"]:
        """Return norm(h)·(1 + scale) + shift."""
        scale, shift = project_time(self.projection, cond).chunk(2, dim=1)
        return norm(h) * (1 + scale) + shift


@final
class InflatedResBlock(ResBlock):
    """Stable Diffusion's residual block over videos: norm, SiLU, convolution, twice, with the time in between."""

    def __init__(
        self, in_channels: int, channels: int, *, time: TimeConditioning, norm_groups: int, norm_eps: float
    ) -> None:
        super().__init__()
        self.norm1 = JointGroupNorm(norm_groups, in_channels, norm_eps)
        self.conv1 = InflatedConv(in_channels, channels)
        self.time = time
        self.norm2 = JointGroupNorm(norm_groups, channels, norm_eps)
        self.conv2 = InflatedConv(channels, channels)
        self.shortcut = InflatedConv(in_channels, channels, 1) if in_channels != channels else nn.Identity()

    def forward(self, x: Float[Tensor, "b c f h w"], cond: Conditioning) -> Float[Tensor, "b out f h w"]:
        """Return shortcut(x) + conv2(SiLU(time(conv1(SiLU(norm1(x))))))."""
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.time(h, self.norm2, cond)))
        return self.shortcut(x) + h


@final
class InflatedResBlockSpec(ResBlockSpec):
    """The residual block of Stable Diffusion, inflated: the time embedding is added."""

    type: Literal["inflated"] = "inflated"

    def build(self, site: Site, in_channels: int) -> InflatedResBlock:
        """Build a block from `in_channels` to `site.channels`."""
        return _build(site, in_channels, AddTime(site.time_dim, site.channels))


@final
class ModulatedResBlockSpec(ResBlockSpec):
    """The inflated residual block with adaptive group norm: the time embedding scales and shifts."""

    type: Literal["modulated"] = "modulated"

    def build(self, site: Site, in_channels: int) -> InflatedResBlock:
        """Build a block from `in_channels` to `site.channels`."""
        return _build(site, in_channels, ScaleShiftTime(site.time_dim, site.channels))


def _build(site: Site, in_channels: int, time: TimeConditioning) -> InflatedResBlock:
    return InflatedResBlock(in_channels, site.channels, time=time, norm_groups=site.norm_groups, norm_eps=site.norm_eps)
