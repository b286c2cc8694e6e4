"""Attention inside frames, to the first and previous frame, and to the text."""

import pytest
import torch
from einops import rearrange
from torch import Tensor, nn

from lavie.blocks.attention import Attention
from lavie.blocks.base import Conditioning, Site
from lavie.blocks.spatial import (
    SparseCausalAttentionSpec,
    SpatialAttentionSpec,
    TextAttention,
    TextAttentionSpec,
)

SITE = Site(channels=16, num_heads=2, context_dim=6)
TEXT = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(3))
COND = Conditioning(TEXT)


def video(num_frames: int = 4) -> Tensor:
    return torch.randn(2, 16, num_frames, 3, 2, generator=torch.Generator().manual_seed(1))


def tokens(x: Tensor, frame: int) -> Tensor:
    return rearrange(x[:, :, frame], "b c h w -> b (h w) c")


def image(update: Tensor) -> Tensor:
    return rearrange(update, "b (h w) c -> b c h w", h=3)


@torch.no_grad()
def test_full_attention_keeps_frames_independent():
    layer, x = SpatialAttentionSpec().build(SITE), video()
    torch.testing.assert_close(layer(x, COND)[:, :, 1:2], layer(x[:, :, 1:2], COND))


@torch.no_grad()
def test_full_attention_does_not_know_where_a_position_is():
    layer, x = SpatialAttentionSpec().build(SITE), video()
    torch.testing.assert_close(layer(x.flip(3), COND), layer(x, COND).flip(3))


@torch.no_grad()
def test_sparse_causal_attention_equals_attention_to_the_first_and_the_previous_frame():
    layer, x = SparseCausalAttentionSpec().build(SITE), video()
    expected = []
    for frame in range(4):
        seen = torch.cat((tokens(x, 0), tokens(x, max(frame - 1, 0))), dim=1)
        expected.append(image(layer.attention(tokens(x, frame), seen)))
    torch.testing.assert_close(layer(x, COND), torch.stack(expected, dim=2))


@torch.no_grad()
def test_sparse_causal_attention_never_sees_its_own_frame():
    layer, x = SparseCausalAttentionSpec().build(SITE), video()
    nn.init.zeros_(layer.attention.query.weight)  # so that a frame matters through its keys and values alone
    for frame, followers in {0: [0, 1, 2, 3], 1: [2], 2: [3], 3: []}.items():
        changed = x.clone()
        changed[:, :, frame] += 1.0
        differs = (layer(changed, COND) - layer(x, COND)).abs().amax(dim=(0, 1, 3, 4)) > 1e-6
        assert differs.nonzero().flatten().tolist() == followers


@torch.no_grad()
def test_text_for_the_whole_video_equals_text_for_every_frame():
    layer, x = TextAttentionSpec().build(SITE), video()
    expected = torch.stack([image(layer.attention(tokens(x, i), TEXT)) for i in range(4)], dim=2)
    torch.testing.assert_close(layer(x, COND), expected)


@pytest.mark.parametrize("num_frames", [1, 4])
def test_the_text_is_projected_once_per_video(num_frames):
    attention = Attention(16, num_heads=2, context_dim=6)
    sizes: list[int] = []
    attention.key.register_forward_hook(lambda module, inputs, output: sizes.append(inputs[0].shape[0]))
    TextAttention(attention)(video(num_frames), COND)
    assert sizes == [2]


@torch.no_grad()
def test_images_attend_to_their_own_text():
    layer, x = TextAttentionSpec().build(SITE), video()
    context = torch.randn(2, 3, 5, 6)
    update = layer(x, Conditioning(context, num_images=2))
    torch.testing.assert_close(update[:, :, :2], layer(x[:, :, :2], Conditioning(context[:, 0])))
    for slot, frame in ((1, 2), (2, 3)):
        alone = layer(x[:, :, frame : frame + 1], Conditioning(context[:, slot]))
        torch.testing.assert_close(update[:, :, frame : frame + 1], alone)


@torch.no_grad()
def test_images_may_come_without_a_video():
    layer, x = TextAttentionSpec().build(SITE), video(2)
    context = torch.randn(2, 3, 5, 6)
    update = layer(x, Conditioning(context, num_images=2))
    torch.testing.assert_close(update[:, :, 1:], layer(x[:, :, 1:], Conditioning(context[:, 2])))


@torch.no_grad()
def test_one_video_text_may_come_in_a_slot():
    layer, x = TextAttentionSpec().build(SITE), video()
    torch.testing.assert_close(layer(x, Conditioning(TEXT.unsqueeze(1))), layer(x, COND))
