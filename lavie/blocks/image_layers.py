"""What image autoencoders are made of: residual blocks, attention and changes of resolution."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, final

import torch.nn.functional as F  # noqa: N812
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from lavie.blocks.self_attention import SelfAttention

NORM_EPS = 1e-6


class ImageLayer(nn.Module, ABC):
    """One step of an image network."""

    @abstractmethod
    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n out p q"]:
        """Return the next features."""

    if TYPE_CHECKING:

        def __call__(self, x: Tensor) -> Tensor: ...


@final
class ImageResBlock(ImageLayer):
    """Norm, SiLU and 3×3 convolution, twice, around a shortcut."""

    def __init__(self, in_channels: int, channels: int, *, norm_groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(norm_groups, in_channels, NORM_EPS)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(norm_groups, channels, NORM_EPS)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.shortcut = nn.Conv2d(in_channels, channels, 1) if in_channels != channels else nn.Identity()

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n out h w"]:
        """Return shortcut(x) + conv2(SiLU(norm2(conv1(SiLU(norm1(x))))))."""
        h = self.conv1(F.silu(self.norm1(x)))
        return self.shortcut(x) + self.conv2(F.silu(self.norm2(h)))


@final
class ImageAttention(ImageLayer):
    """Single-head self-attention over the positions of an image, added to its input."""

    def __init__(self, channels: int, *, norm_groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(norm_groups, channels, NORM_EPS)
        self.mix = SelfAttention(channels)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Return x + attention(norm(x))."""
        h = x.shape[2]
        update = self.mix(rearrange(self.norm(x), "n c h w -> n (h w) c"))
        return x + rearrange(update, "n (h w) c -> n c h w", h=h)


@final
class Halve(ImageLayer):
    """Halve height and width; padded on the right and at the bottom only, unlike the UNet's downsampler."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c p q"]:
        """Return `x` at half the size."""
        return self.conv(F.pad(x, (0, 1, 0, 1)))


@final
class Double(ImageLayer):
    """Double height and width by nearest neighbour, then convolve 3×3."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c p q"]:
        """Return `x` at twice the size."""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


@final
class Level(nn.Module):
    """The residual blocks of one resolution, and the change to the next one (none after the last)."""

    def __init__(self, widths: tuple[int, ...], resample: Halve | Double | None, *, norm_groups: int) -> None:
        super().__init__()
        pairs = pairwise(widths)
        self.resblocks = nn.ModuleList(ImageResBlock(*pair, norm_groups=norm_groups) for pair in pairs)
        self.resample = resample

    def layers(self) -> list[nn.Module]:
        """Return the blocks, then the change of resolution."""
        return [*self.resblocks, *([self.resample] if self.resample is not None else [])]


@final
class Middle(nn.Module):
    """Two residual blocks at the coarsest resolution, with or without attention between them."""

    def __init__(self, channels: int, *, norm_groups: int, attention: bool) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(ImageResBlock(channels, channels, norm_groups=norm_groups) for _ in range(2))
        self.attention = ImageAttention(channels, norm_groups=norm_groups) if attention else None

    def layers(self) -> list[nn.Module]:
        """Return block, attention, block."""
        first, second = self.resblocks
        return [first, *([self.attention] if self.attention is not None else []), second]


class ImageNetwork(nn.Module, ABC):
    """Half of an autoencoder: a convolution, image layers in a row, and a convolution after a norm and a SiLU."""

    conv_in: nn.Conv2d
    norm_out: nn.GroupNorm
    conv_out: nn.Conv2d

    @abstractmethod
    def parts(self) -> Sequence[Level | Middle]:
        """Return what stands between the outer convolutions, first to last."""

    def layers(self) -> list[ImageLayer]:
        """Return all image layers, first to last."""
        layers = [layer for part in self.parts() for layer in part.layers()]
        return [layer for layer in layers if isinstance(layer, ImageLayer)]

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n out p q"]:
        """Run everything in order."""
        x = self.conv_in(images)
        for layer in self.layers():
            x = layer(x)
        return self.conv_out(F.silu(self.norm_out(x)))
