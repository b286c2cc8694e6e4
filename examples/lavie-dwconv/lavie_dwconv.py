"""Depthwise temporal convolution for lavie."""

from typing import Annotated, Literal

from lavie import Spec, hookimpl
from lavie.blocks import Conditioning, Site, TemporalLayer, TemporalSpec
from pydantic import Field
from torch import Tensor, nn


class DepthwiseConv(TemporalLayer):
    def __init__(self, channels: int, reach: int) -> None:
        super().__init__()
        size = (2 * reach + 1, 1, 1)
        self.conv = nn.Conv3d(channels, channels, size, padding="same", groups=channels, bias=False)
        nn.init.zeros_(self.conv.weight)

    def forward(self, x: Tensor, cond: Conditioning) -> Tensor:
        return self.conv(x)


class DepthwiseConvSpec(TemporalSpec):
    type: Literal["dwconv"] = "dwconv"
    reach: Annotated[int, Field(ge=1)] = 1
    """Frames each output frame sees on either side."""

    def build(self, site: Site) -> DepthwiseConv:
        return DepthwiseConv(site.channels, self.reach)


@hookimpl
def lavie_components() -> list[type[Spec]]:
    return [DepthwiseConvSpec]
