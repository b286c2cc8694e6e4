"""Temporal attention."""

import torch
from torch import Tensor, nn

from lavie.blocks.base import Conditioning, Site, TemporalLayer
from lavie.blocks.bias import RelativeBiasSpec
from lavie.blocks.position import RotarySpec
from lavie.blocks.temporal import NoTemporalSpec, TemporalAttentionSpec

SITE = Site(channels=16, num_heads=2)
PLAIN = TemporalAttentionSpec()
POSITIONED = TemporalAttentionSpec(position=RotarySpec(dim=8), bias=RelativeBiasSpec(num_buckets=8, max_distance=8))
COND = Conditioning(torch.zeros(2, 1, 4))


def awake(spec: TemporalAttentionSpec) -> TemporalLayer:
    """Build a layer as training would leave it: with an output projection that is not zero."""
    torch.manual_seed(0)
    layer = spec.build(SITE)
    nn.init.normal_(layer.attention.out.weight)
    return layer


def video() -> Tensor:
    return torch.randn(2, 16, 5, 3, 2, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_a_fresh_layer_adds_nothing():
    assert not POSITIONED.build(SITE)(video(), COND).any()


@torch.no_grad()
def test_every_pixel_is_on_its_own():
    layer, x = awake(POSITIONED), video()
    changed = x.clone()
    changed[:, :, :, 1, 0] += 1.0
    differs = (layer(changed, COND) - layer(x, COND)).abs().amax(dim=(0, 1, 2)) > 1e-6
    assert differs.nonzero().tolist() == [[1, 0]]


@torch.no_grad()
def test_every_frame_sees_earlier_and_later_ones():
    layer, x = awake(POSITIONED), video()
    for frame in (0, 4):
        changed = x.clone()
        changed[:, :, frame] += 1.0
        assert bool(((layer(changed, COND) - layer(x, COND)).abs().amax(dim=(0, 1, 3, 4)) > 1e-4).all())


@torch.no_grad()
def test_without_positions_the_order_of_frames_does_not_matter_and_with_them_it_does():
    x = video()
    plain, positioned = awake(PLAIN), awake(POSITIONED)
    torch.testing.assert_close(plain(x.flip(2), COND), plain(x, COND).flip(2))
    assert not torch.allclose(positioned(x.flip(2), COND), positioned(x, COND).flip(2), atol=1e-2)


@torch.no_grad()
def test_videos_of_a_batch_are_independent():
    layer, x = awake(POSITIONED), video()
    torch.testing.assert_close(layer(x, COND)[1:], layer(x[1:], COND))


def test_none_leaves_the_slot_empty():
    assert NoTemporalSpec().build(SITE) is None
