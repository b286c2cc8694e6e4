"""Transformers: the order of their sublayers, and who sees images that ride along."""

import pytest
import torch
from torch import Tensor, nn

from lavie.blocks.base import Conditioning, Site, TemporalLayer
from lavie.blocks.spatial import SparseCausalAttentionSpec, SpatialAttentionSpec, TextAttentionSpec
from lavie.blocks.temporal import NoTemporalSpec, TemporalAttentionSpec
from lavie.blocks.temporal_conv import TemporalConvBlockSpec
from lavie.blocks.transformer import FrameGroupNorm, Transformer, TransformerSpec, update_video
from lavie.spec import PerLevel

SITE = Site(channels=16, num_heads=2, context_dim=6, norm_groups=4)
COND = Conditioning(torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(3)))
JOINT = Conditioning(torch.randn(2, 3, 5, 6, generator=torch.Generator().manual_seed(5)), num_images=2)


def video(num_frames: int = 5) -> Tensor:
    return torch.randn(2, 16, num_frames, 3, 2, generator=torch.Generator().manual_seed(1))


def awake(spec: TransformerSpec) -> Transformer:
    """Build a transformer as training would leave it: nothing in it is zero."""
    torch.manual_seed(0)
    transformer = spec.build(SITE, 0)
    for parameter in transformer.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return transformer


class AddFrameIndex(TemporalLayer):
    """Adds to every frame one more than to the one before it; remembers what it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[Conditioning] = []

    def forward(self, x: Tensor, cond: Conditioning) -> Tensor:
        self.told.append(cond)
        return torch.ones_like(x).cumsum(dim=2)


def test_sublayers_stand_in_the_declared_order_and_no_others():
    spec = TransformerSpec(order=("text", "feed_forward", "temporal"))
    assert list(spec.build(SITE, 0).sublayers) == ["text", "feed_forward", "temporal"]


@torch.no_grad()
def test_the_order_matters():
    one = awake(TransformerSpec(order=("text", "temporal")))
    other = TransformerSpec(order=("temporal", "text")).build(SITE, 0)
    other.load_state_dict(one.state_dict())
    assert not torch.allclose(one(video(), COND), other(video(), COND), atol=1e-3)


def test_a_sublayer_named_twice_is_refused():
    with pytest.raises(ValueError, match="order names a sublayer twice: text, text"):
        TransformerSpec(order=("text", "text"))


def test_an_empty_slot_builds_no_sublayer():
    spec = TransformerSpec(temporal=PerLevel(everywhere=NoTemporalSpec()))
    assert "temporal" not in spec.build(SITE, 0).sublayers


def test_each_part_may_differ_by_level_and_in_the_middle():
    spec = TransformerSpec(
        spatial=PerLevel(levels=(SpatialAttentionSpec(), TextAttentionSpec()), mid=SparseCausalAttentionSpec()),
        temporal=PerLevel(levels=(NoTemporalSpec(), TemporalAttentionSpec())),
    )
    built = {level: spec.build(SITE, level).sublayers for level in (0, 1, None)}
    assert [type(built[level]["spatial"].layer).__name__ for level in (0, 1, None)] == [
        "SpatialAttention",
        "TextAttention",
        "SparseCausalAttention",
    ]
    assert ["temporal" in built[level] for level in (0, 1, None)] == [False, True, True]


@torch.no_grad()
def test_a_temporal_layer_leaves_images_alone():
    x, layer = video(), AddFrameIndex()
    found = update_video(x, layer, JOINT)
    assert torch.equal(found[:, :, 3:], x[:, :, 3:])
    for frame in range(3):
        torch.testing.assert_close(found[:, :, frame], x[:, :, frame] + frame + 1)


def test_a_temporal_layer_is_told_of_the_video_alone():
    layer = AddFrameIndex()
    update_video(video(), layer, JOINT)
    assert layer.told[0].num_images == 0
    assert torch.equal(layer.told[0].context, JOINT.context[:, 0])


def test_a_temporal_layer_never_meets_images_without_a_video():
    layer, x = AddFrameIndex(), video(2)
    assert torch.equal(update_video(x, layer, JOINT), x)
    assert layer.told == []


@torch.no_grad()
def test_images_riding_along_come_out_as_they_would_alone():
    transformer, x = awake(TransformerSpec()), video()
    found = transformer(x, JOINT)
    torch.testing.assert_close(found[:, :, :3], transformer(x[:, :, :3], Conditioning(JOINT.context[:, 0])))
    for frame, slot in ((3, 1), (4, 2)):
        still = TransformerSpec(order=("spatial", "text", "feed_forward")).build(SITE, 0)
        shared = {key: value for key, value in transformer.state_dict().items() if ".temporal." not in key}
        still.load_state_dict(shared)
        alone = still(x[:, :, frame : frame + 1], Conditioning(JOINT.context[:, slot]))
        torch.testing.assert_close(found[:, :, frame : frame + 1], alone)


@torch.no_grad()
def test_the_residual_is_taken_after_the_layer_ahead():
    spec = TransformerSpec(before=PerLevel(everywhere=TemporalConvBlockSpec(norm_groups=4)))
    transformer, x = awake(spec), video()
    nn.init.zeros_(transformer.proj_out.weight)
    nn.init.zeros_(transformer.proj_out.bias)
    torch.testing.assert_close(transformer(x, COND), x + transformer.before(x, COND))


@torch.no_grad()
def test_the_norm_at_the_head_knows_single_frames_only():
    norm, x = FrameGroupNorm(4, 16, 1e-6), video()
    torch.testing.assert_close(norm(x)[:, :, 1:2], norm(x[:, :, 1:2]))


@pytest.mark.parametrize("projection", ["conv", "linear"])
@torch.no_grad()
def test_both_shapes_of_the_outer_projections_mean_the_same(projection):
    conv = awake(TransformerSpec())
    other = TransformerSpec(projection=projection).build(SITE, 0)
    state = {
        key: value.flatten(1) if key in ("proj_in.weight", "proj_out.weight") and projection == "linear" else value
        for key, value in conv.state_dict().items()
    }
    other.load_state_dict(state)
    torch.testing.assert_close(other(video(), COND), conv(video(), COND))
