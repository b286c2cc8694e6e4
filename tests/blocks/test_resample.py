"""Halving and enlarging frames."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from lavie.blocks.resample import Downsample, Upsample


@pytest.mark.parametrize(("size", "half"), [((8, 6), (4, 3)), ((7, 5), (4, 3)), ((1, 2), (1, 1))])
@torch.no_grad()
def test_sizes_are_halved_and_rounded_up(size, half):
    assert Downsample(4)(torch.randn(2, 4, 3, *size)).shape == (2, 4, 3, *half)


@pytest.mark.parametrize("size", [(8, 6), (7, 5)])
@torch.no_grad()
def test_frames_are_enlarged_to_the_size_that_is_asked_for(size):
    layer, x = Upsample(4), torch.randn(2, 4, 3, 4, 3)
    nearest = torch.stack([F.interpolate(x[:, :, i], size=size) for i in range(3)], dim=2)
    torch.testing.assert_close(layer(x, *size), layer.conv(nearest))


@torch.no_grad()
def test_frames_are_independent():
    x = torch.randn(2, 4, 3, 4, 6)
    for layer in (Downsample(4), Upsample(4)):
        sizes = (8, 12) if isinstance(layer, Upsample) else ()
        torch.testing.assert_close(layer(x, *sizes)[:, :, 1:2], layer(x[:, :, 1:2], *sizes))
