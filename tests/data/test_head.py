"""Clips cut off after their first frames."""

import pytest
import torch

from lavie.data import HeadSpec, ShapesSpec

SHAPES = ShapesSpec(num_frames=4, height=16, width=16)


def test_a_head_is_the_start_of_the_clip_under_its_caption() -> None:
    whole, head = SHAPES.build().clip(5), HeadSpec(clips=SHAPES, num_frames=2).build().clip(5)
    assert torch.equal(head.video, whole.video[:, :2])
    assert (head.caption, head.labels) == (whole.caption, whole.labels)


def test_opposite_motions_start_at_opposite_sides() -> None:
    starts: dict[str, list[float]] = {"left": [], "right": []}
    heads = HeadSpec(clips=ShapesSpec(num_frames=2, height=16, width=16), num_frames=1).build()
    for index in range(60):
        clip = heads.clip(index)
        if (motion := clip.labels["motion"]) in starts:
            shown = (clip.video - clip.video[:, :, :1, :1]).abs().sum(dim=(0, 1, 2))
            starts[motion].append(float((shown * torch.arange(16)).sum() / shown.sum()))
    assert min(starts["left"]) > 8 > max(starts["right"])


def test_a_clip_that_is_too_short_is_refused() -> None:
    with pytest.raises(ValueError, match="only 4 frames"):
        HeadSpec(clips=SHAPES, num_frames=5).build().clip(0)
