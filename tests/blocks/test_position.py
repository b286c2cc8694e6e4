"""Rotary positions along frames."""

import pytest
import torch

from lavie.blocks.base import Site
from lavie.blocks.position import NoPositionSpec, RotarySpec, rotary_frequencies

SITE = Site(channels=32, num_heads=2)
ROPE = RotarySpec(dim=8)


def same_in_every_frame(num_frames: int) -> torch.Tensor:
    token = torch.randn(1, 2, 1, 16, generator=torch.Generator().manual_seed(0))
    return token.expand(-1, -1, num_frames, -1)


def test_rope_scores_depend_only_on_distance():
    rope = ROPE.build(SITE)
    scores = rope(same_in_every_frame(9)) @ rope(same_in_every_frame(9).flip(1)).transpose(-1, -2)
    torch.testing.assert_close(scores[..., 1:, 1:], scores[..., :-1, :-1])
    assert scores[0, 0, 0].std() > 0.01


def test_rotation_keeps_lengths_and_leaves_the_first_frame_alone():
    x = torch.randn(3, 2, 5, 16)
    turned = ROPE.build(SITE)(x)
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    torch.testing.assert_close(turned[:, :, 0], x[:, :, 0])
    assert not torch.allclose(turned[:, :, 1], x[:, :, 1])


def test_channels_beyond_dim_pass_through():
    x = torch.randn(3, 2, 5, 16)
    assert torch.equal(ROPE.build(SITE)(x)[..., 8:], x[..., 8:])


def test_neighbouring_channels_are_turned_together():
    x = torch.zeros(1, 1, 3, 16)
    x[..., 2] = 1.0
    angles = torch.arange(3) * rotary_frequencies(8)[1].float()
    turned = ROPE.build(SITE)(x)[0, 0]
    torch.testing.assert_close(turned[:, 2:4], torch.stack((angles.cos(), angles.sin()), dim=-1))


def test_a_network_in_half_precision_turns_by_the_same_angles():
    x = torch.randn(3, 2, 61, 16)
    assert torch.equal(ROPE.build(SITE).to(torch.bfloat16)(x), ROPE.build(SITE)(x))


@pytest.mark.parametrize("head_dim", [8, 9, 15])
def test_heads_of_any_width_and_any_memory_order_turn_alike(head_dim):
    rope = ROPE.build(Site(channels=2 * head_dim, num_heads=2))
    x = torch.randn(3, 5, 2 * head_dim)
    projected = x.unflatten(-1, (2, head_dim)).transpose(1, 2)
    torch.testing.assert_close(rope(projected), rope(projected.contiguous()))
    strided = torch.randn(3, 2, 5, 2 * head_dim)[..., ::2]
    torch.testing.assert_close(rope(strided), rope(strided.contiguous()))


def test_half_precision_is_rounded_once():
    x = torch.randn(3, 2, 61, 16).bfloat16()
    assert torch.equal(ROPE.build(SITE)(x), ROPE.build(SITE)(x.float()).bfloat16())


def test_positions_are_not_part_of_the_weights():
    assert ROPE.build(SITE).state_dict() == {}


def test_heads_narrower_than_the_rotation_are_refused():
    with pytest.raises(ValueError, match="rope rotates 32 channels but a head has 16"):
        RotarySpec().build(SITE)


def test_none_builds_nothing():
    assert NoPositionSpec().build(SITE) is None
