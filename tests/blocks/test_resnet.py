"""Inflated convolutions, norms over all frames, residual blocks."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from lavie.blocks.base import Conditioning, Site
from lavie.blocks.resnet import InflatedConv, InflatedResBlockSpec, JointGroupNorm, ModulatedResBlockSpec

SITE = Site(channels=8, time_dim=6, norm_groups=4)
COND = Conditioning(torch.zeros(2, 1, 4), time_embed=torch.randn(2, 1, 6))
SPECS = [InflatedResBlockSpec(), ModulatedResBlockSpec()]


@pytest.mark.parametrize("stride", [1, 2])
@torch.no_grad()
def test_an_inflated_convolution_is_a_convolution_of_each_frame(stride):
    conv, x = InflatedConv(4, 6, stride=stride), torch.randn(2, 4, 3, 5, 6)
    expected = [F.conv2d(x[:, :, i], conv.weight, conv.bias, stride=stride, padding=1) for i in range(3)]
    torch.testing.assert_close(conv(x), torch.stack(expected, dim=2))


@torch.no_grad()
def test_the_norm_pools_over_all_frames():
    norm, x = JointGroupNorm(4, 8, 1e-5), torch.randn(2, 8, 3, 5, 6)
    nn.init.normal_(norm.weight)
    torch.testing.assert_close(norm(x), F.group_norm(x, 4, norm.weight, norm.bias, 1e-5))
    louder = x.clone()
    louder[:, :, 2] *= 3
    assert not torch.allclose(norm(louder)[:, :, 0], norm(x)[:, :, 0], atol=1e-2)


def test_groups_of_unequal_size_are_refused():
    with pytest.raises(ValueError, match="10 channels cannot be split into 4 groups"):
        JointGroupNorm(4, 10, 1e-5)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.type)
@pytest.mark.parametrize("in_channels", [8, 12])
@torch.no_grad()
def test_a_block_may_change_the_number_of_channels(spec, in_channels):
    block = spec.build(SITE, in_channels)
    assert block(torch.randn(2, in_channels, 3, 4, 5), COND).shape == (2, 8, 3, 4, 5)
    assert isinstance(block.shortcut, nn.Identity) == (in_channels == 8)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.type)
@torch.no_grad()
def test_one_time_for_all_frames_equals_the_same_time_in_every_frame(spec):
    block, x = spec.build(SITE, 8), torch.randn(2, 8, 3, 4, 5)
    repeated = replace(COND, time_embed=COND.time_embed.expand(-1, 3, -1))
    torch.testing.assert_close(block(x, repeated), block(x, COND))


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.type)
@torch.no_grad()
def test_frames_may_have_times_of_their_own(spec):
    block, x = spec.build(SITE, 8), torch.randn(2, 8, 1, 4, 5).expand(-1, -1, 3, -1, -1)
    different = replace(COND, time_embed=torch.randn(2, 3, 6))
    out = block(x, different)
    assert not torch.allclose(out[:, :, 0], out[:, :, 1], atol=1e-4)


@torch.no_grad()
def test_without_time_both_blocks_are_the_same():
    plain, modulated = (spec.build(SITE, 8) for spec in SPECS)
    shared = {key: value for key, value in plain.state_dict().items() if "time" not in key}
    modulated.load_state_dict(shared, strict=False)
    for block in (plain, modulated):
        nn.init.zeros_(block.time.projection.weight)
        nn.init.zeros_(block.time.projection.bias)
    x = torch.randn(2, 8, 3, 4, 5)
    torch.testing.assert_close(plain(x, COND), modulated(x, COND))
