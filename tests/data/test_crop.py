"""Pieces of clips."""

import pytest
import torch

from lavie.data import CropSpec, ShapesSpec

SHAPES = ShapesSpec(num_frames=6, height=24, width=32)


def test_a_crop_is_a_piece_of_the_clip_under_its_caption() -> None:
    whole = SHAPES.build().clip(3)
    crop = CropSpec(clips=SHAPES, num_frames=2, height=8, width=10).build().clip(3)
    assert crop.video.shape == (3, 2, 8, 10)
    assert (crop.caption, crop.labels) == (whole.caption, whole.labels)
    places = [(f, y, x) for f in range(5) for y in range(17) for x in range(23)]
    assert any(torch.equal(whole.video[:, f : f + 2, y : y + 8, x : x + 10], crop.video) for f, y, x in places)


def test_what_is_not_named_stays_whole() -> None:
    assert torch.equal(CropSpec(clips=SHAPES).build().clip(1).video, SHAPES.build().clip(1).video)


def test_places_vary_from_clip_to_clip_and_with_the_seed_but_not_from_call_to_call() -> None:
    still = ShapesSpec(num_frames=1, height=64, width=64)
    crops = CropSpec(clips=still, height=16, width=16).build()
    other = CropSpec(clips=still, height=16, width=16, seed=1).build()
    assert torch.equal(crops.clip(0).video, crops.clip(0).video)
    assert any(not torch.equal(crops.clip(i).video, other.clip(i).video) for i in range(8))


def test_a_clip_that_is_too_small_is_refused_with_the_side() -> None:
    with pytest.raises(ValueError, match="height: 25 of a clip that has only 24"):
        CropSpec(clips=SHAPES, height=25).build().clip(0)
