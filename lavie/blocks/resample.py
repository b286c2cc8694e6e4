"""Halving and doubling of height and width; the number of frames never changes."""

import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor, nn

from lavie.blocks.layout import fold_frames, unfold_frames
from lavie.blocks.resnet import InflatedConv


class Downsample(nn.Module):
    """Halve height and width with a strided 3×3 convolution, padded symmetrically."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = InflatedConv(channels, channels, stride=2)

    def forward(self, x: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b c f p q"]:
        """Return `x` at half the size, rounded up."""
        return self.conv(x)


class Upsample(nn.Module):
    """Enlarge to a given size by nearest neighbour, then convolve 3×3.

    The size is that of the skip connection that is concatenated next; for odd sizes it is not exactly double.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = InflatedConv(channels, channels)

    def forward(self, x: Float[Tensor, "b c f h w"], height: int, width: int) -> Float[Tensor, "b c f p q"]:
        """Return `x` at `height` × `width`."""
        frames = F.interpolate(fold_frames(x), size=(height, width), mode="nearest")
        return self.conv(unfold_frames(frames, x.shape[2]))
