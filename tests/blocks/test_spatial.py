"""Attention inside frames, to the first and previous frame, and to the text."""

from dataclasses import replace

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
    blinded,
)
from lavie.blocks.transformer import TransformerSpec
from lavie.blocks.unet import NormSpec, UNetSpec
from lavie.errors import SpecError
from lavie.spec import PerLevel

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


@torch.no_grad()
@pytest.mark.parametrize("spec", [SpatialAttentionSpec(), SparseCausalAttentionSpec()])
def test_a_blind_token_sees_nothing_but_itself(spec):
    layer, x = spec.build(SITE), video()
    blind = replace(COND, blind=frozenset({SITE.place}))
    alone = torch.cat([layer(x[:, :, i : i + 1, j : j + 1, k : k + 1], COND) for i, j, k in PLACES], dim=2)
    torch.testing.assert_close(
        torch.cat([layer(x, blind)[:, :, i, j, k, None] for i, j, k in PLACES], 2), alone[..., 0, 0]
    )
    assert torch.equal(layer(x, replace(COND, blind=frozenset({1, "mid"}))), layer(x, COND))


PLACES = [(frame, row, column) for frame in range(4) for row in range(3) for column in range(2)]


def unet():
    text = PerLevel(levels=(TextAttentionSpec(), SpatialAttentionSpec()), mid=SpatialAttentionSpec())
    return UNetSpec(
        channels=(8, 16),
        num_res_blocks=1,
        attention=PerLevel[bool](everywhere=True),
        context_dim=6,
        norm=NormSpec(groups=4),
        transformer=TransformerSpec(num_heads=PerLevel[int](everywhere=1), spatial=text),
    ).build()


@torch.no_grad()
def test_each_place_of_a_network_goes_blind_by_itself():
    torch.manual_seed(0)
    network, noisy = unet().eval(), torch.randn(2, 4, 2, 4, 4)
    timestep = torch.tensor([100, 100])
    answers = [
        network(noisy, timestep, blinded(network, COND, frozenset(places)))
        for places in ((), (1,), ("mid",), (1, "mid"))
    ]
    assert torch.equal(answers[0], network(noisy, timestep, COND))
    for i, one in enumerate(answers):
        assert not any(torch.allclose(one, other) for other in answers[i + 1 :])


def test_places_without_self_attention_cannot_go_blind():
    with pytest.raises(SpecError, match="guidance: the network has no self-attention at 0, 7; it has some at: 1, mid"):
        blinded(unet(), COND, frozenset({0, 1, 7}))
