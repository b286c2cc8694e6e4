"""The time embedding and the extra inputs of a network."""

import math

import pytest
import torch
from torch import Tensor, nn

from lavie.blocks.base import Conditioning, Site
from lavie.blocks.conditioning import (
    ConcatSpec,
    FrameIndexSpec,
    NoiseLevelSpec,
    PooledTextSpec,
    TimeEmbedding,
    sinusoidal_features,
)

SITE = Site(channels=8, context_dim=6, time_dim=12)
TEXT = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(3))
TIME = torch.randn(2, 1, 12, generator=torch.Generator().manual_seed(4))
JOINT = Conditioning(torch.randn(2, 3, 5, 6, generator=torch.Generator().manual_seed(5)), num_images=2)


def cond(**inputs: Tensor) -> Conditioning:
    return Conditioning(TEXT, inputs=inputs)


def awake(spec: PooledTextSpec | FrameIndexSpec) -> nn.Module:
    """Build a conditioner as training would leave it: with a last layer that is not zero."""
    torch.manual_seed(0)
    conditioner = spec.build(SITE)
    nn.init.normal_(conditioner.mix.weight)
    return conditioner


def test_features_are_cosines_first_then_sines():
    features = sinusoidal_features(torch.tensor([0, 7]), 6)
    assert features[0].tolist() == [1, 1, 1, 0, 0, 0]
    angles = [7 * 10000 ** (-k / 3) for k in range(3)]
    expected = [*map(math.cos, angles), *map(math.sin, angles)]
    torch.testing.assert_close(features[1], torch.tensor(expected))


@torch.no_grad()
def test_timesteps_between_whole_ones_have_an_embedding():
    embed = TimeEmbedding(8, 12)
    lower, between, upper = embed(torch.tensor([10.0, 10.5, 11.0]))
    assert lower.shape == (1, 12)
    assert 0 < (between - lower).norm() < (upper - lower).norm()


def test_concatenated_channels_come_after_the_noisy_latent():
    noisy, low_res = torch.randn(2, 4, 3, 2, 2), torch.randn(2, 3, 3, 2, 2)
    conditioner = ConcatSpec(name="low_res", channels=3).build(SITE)
    joined = conditioner.concat(noisy, cond(low_res=low_res))
    assert conditioner.extra_channels == 3
    assert torch.equal(joined, torch.cat((noisy, low_res), dim=1))


def test_a_missing_input_is_named():
    with pytest.raises(ValueError, match="the network needs the input 'frames'; given: low_res"):
        ConcatSpec().build(SITE).concat(torch.randn(2, 4, 3, 2, 2), cond(low_res=torch.randn(2, 3, 3, 2, 2)))


@torch.no_grad()
def test_a_noise_level_adds_its_row_of_the_table():
    conditioner = NoiseLevelSpec(num_levels=10, max_level=5).build(SITE)
    found = conditioner.embed(TIME, cond(noise_level=torch.tensor([5, 0])), 3)
    assert torch.equal(found, TIME + conditioner.table.weight[[5, 0]].unsqueeze(1))


@pytest.mark.parametrize("level", [-1, 6])
def test_noise_levels_out_of_range_are_refused(level):
    conditioner = NoiseLevelSpec(num_levels=10, max_level=5).build(SITE)
    with pytest.raises(ValueError, match=rf"noise_level must be in \[0, 5\], got \[0, {level}\]"):
        conditioner.embed(TIME, cond(noise_level=torch.tensor([0, level])), 3)


@pytest.mark.parametrize("spec", [PooledTextSpec(), FrameIndexSpec(dim=4)], ids=lambda spec: spec.type)
@torch.no_grad()
def test_a_fresh_conditioner_changes_nothing(spec):
    found = spec.build(SITE).embed(TIME, cond(), 3)
    torch.testing.assert_close(found, TIME.expand_as(found), rtol=0, atol=0)


@torch.no_grad()
def test_the_pooled_text_of_each_image_is_its_own():
    conditioner = awake(PooledTextSpec())
    found = conditioner.embed(TIME, JOINT, 4)
    assert found.shape == (2, 4, 12)
    for frame, slot in enumerate((0, 0, 1, 2)):
        alone = conditioner.embed(TIME, Conditioning(JOINT.context[:, slot]), 1)
        torch.testing.assert_close(found[:, frame : frame + 1], alone)


@torch.no_grad()
def test_frames_are_told_apart_and_images_are_not_frames():
    found = awake(FrameIndexSpec(dim=4)).embed(TIME, JOINT, 5)
    assert found.shape == (2, 5, 12)
    video, images = found[:, :3], found[:, 3:]
    assert all(not torch.allclose(video[:, i], video[:, j], atol=1e-3) for i, j in ((0, 1), (0, 2), (1, 2)))
    assert torch.equal(images, TIME.expand(-1, 2, -1))


@torch.no_grad()
def test_places_are_spread_over_the_whole_video():
    conditioner = awake(FrameIndexSpec(dim=4))
    three, five = (conditioner.embed(TIME, cond(), num_frames) for num_frames in (3, 5))
    torch.testing.assert_close(three, five[:, ::2])


@torch.no_grad()
def test_part_of_a_video_has_the_places_that_it_is_told():
    conditioner = awake(FrameIndexSpec(dim=4))
    inputs = {"frame_places": torch.tensor([0.5, 0.75])}
    part, whole = (
        conditioner.embed(TIME, Conditioning(cond().context, inputs=inputs), 2),
        conditioner.embed(TIME, cond(), 5),
    )
    torch.testing.assert_close(part, whole[:, 2:4])


@torch.no_grad()
def test_frames_may_differ_in_their_timesteps():
    embed = TimeEmbedding(8, 12)
    timesteps = torch.tensor([[10.0, 500.0, 7.0], [3.0, 2.0, 1.0]])
    torch.testing.assert_close(embed(timesteps), torch.cat([embed(each) for each in timesteps.T], dim=1))


@torch.no_grad()
def test_images_do_not_shift_the_places_of_the_video():
    conditioner = awake(FrameIndexSpec(dim=4))
    torch.testing.assert_close(conditioner.embed(TIME, JOINT, 5)[:, :3], conditioner.embed(TIME, cond(), 3))


@torch.no_grad()
def test_images_without_a_video_pass_unchanged():
    assert torch.equal(awake(FrameIndexSpec(dim=4)).embed(TIME, JOINT, 2), TIME)


@torch.no_grad()
def test_the_place_of_a_frame_joins_embeddings_that_differ_already():
    conditioner = awake(FrameIndexSpec(dim=4))
    apart = torch.randn(2, 3, 12)
    for frame in range(3):
        alone = conditioner.embed(apart[:, frame : frame + 1].expand(-1, 3, -1), cond(), 3)
        torch.testing.assert_close(conditioner.embed(apart, cond(), 3)[:, frame], alone[:, frame])
