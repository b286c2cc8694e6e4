"""Convolutions along frames."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from lavie.blocks.base import Conditioning, Site
from lavie.blocks.temporal_conv import SpatioTemporalBlockSpec, TemporalConv, TemporalConvBlockSpec

SITE = Site(channels=8, time_dim=6)
COND = Conditioning(torch.zeros(2, 1, 4), time_embed=torch.randn(2, 1, 6))
SPECS = [TemporalConvBlockSpec(norm_groups=4), SpatioTemporalBlockSpec(norm_groups=4)]


@pytest.mark.parametrize("kernel", [1, 3, 5])
@torch.no_grad()
def test_it_equals_a_convolution_in_three_dimensions(kernel):
    conv, x = TemporalConv(8, kernel), torch.randn(2, 8, 5, 3, 4)
    expected = F.conv3d(x, conv.weight, conv.bias, padding=(kernel // 2, 0, 0))
    torch.testing.assert_close(conv(x), expected)


@torch.no_grad()
def test_it_reaches_as_far_as_its_kernel():
    conv, x = TemporalConv(8, 3), torch.randn(1, 8, 7, 2, 2)
    changed = x.clone()
    changed[:, :, 3] += 1.0
    differs = (conv(changed) - conv(x)).abs().amax(dim=(0, 1, 3, 4)) > 1e-6
    assert differs.tolist() == [False, False, True, True, True, False, False]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.type)
@pytest.mark.parametrize("num_frames", [1, 4])
@torch.no_grad()
def test_a_fresh_block_adds_nothing_and_keeps_the_shape(spec, num_frames):
    x = torch.randn(2, 8, num_frames, 3, 2)
    update = spec.build(SITE)(x, COND)
    assert update.shape == x.shape
    assert not update.any()


@torch.no_grad()
def test_only_the_block_with_time_heeds_the_timestep():
    other = Conditioning(COND.context, time_embed=-COND.time_embed)
    x = torch.randn(2, 8, 4, 3, 2)
    timed, plain = SPECS[1].build(SITE), SPECS[0].build(SITE)
    nn.init.normal_(timed.out.weight)
    nn.init.normal_(plain.conv2.weight)
    assert not torch.allclose(timed(x, other), timed(x, COND))
    assert torch.equal(plain(x, other), plain(x, COND))


@pytest.mark.parametrize("spec", [TemporalConvBlockSpec, SpatioTemporalBlockSpec])
def test_even_kernels_are_refused(spec):
    with pytest.raises(ValueError, match=r"kernels \[3, 4\] must be odd"):
        spec(kernels=(3, 4), norm_groups=4).build(SITE)
