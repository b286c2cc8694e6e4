"""The scorer reads back what the world of shapes drew, also through blur and noise."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from lavie.data.base import Clip
from lavie.data.shapes import ShapesSpec
from lavie.metrics.shapes import ATTRIBUTES, ShapesAccuracySpec, read


def blurred(video: Tensor, sigma: float) -> Tensor:
    ticks = torch.arange(-4.0, 5.0)
    kernel = torch.softmax(-(ticks**2) / (2 * sigma**2), dim=0)
    padded = functional.pad(video.transpose(0, 1), (4, 4, 4, 4), mode="replicate")
    across = functional.conv2d(padded, kernel.view(1, 1, 1, 9).expand(3, 1, 1, 9), groups=3)
    return functional.conv2d(across, kernel.view(1, 1, 9, 1).expand(3, 1, 9, 1), groups=3).transpose(0, 1)


def noisy(video: Tensor, std: float, seed: int) -> Tensor:
    return video + std * torch.randn(video.shape, generator=torch.Generator().manual_seed(seed))


def clips(size: int, num_frames: int = 16, every: int = 1) -> list[Clip]:
    """Take every combination that there is, or some evenly."""
    drawn = []
    for split in ("seen", "triples", "pairs") if num_frames > 1 else ("seen", "pairs"):
        spec = ShapesSpec.model_validate({"split": split, "height": size, "width": size, "num_frames": num_frames})
        dataset = spec.build()
        drawn += [dataset.clip(index) for index in range(0, len(dataset.combinations), every)]
    return drawn


def clip_of(motion: str) -> Clip:
    dataset = ShapesSpec(split="seen").build()
    return next(clip for clip in map(dataset.clip, range(100)) if clip.labels["motion"] == motion)


@pytest.mark.parametrize(
    ("size", "every"),
    [(32, 4), (64, 16), pytest.param(32, 1, marks=pytest.mark.slow), pytest.param(64, 1, marks=pytest.mark.slow)],
)
def test_everything_is_right_on_ground_truth(size: int, every: int) -> None:
    wrong = [clip.labels for clip in clips(size, every=every) if read(clip.video) != clip.labels]
    assert not wrong


@pytest.mark.parametrize(("size", "sigma", "every"), [(64, 1.0, 10), (32, 0.7, 10)])
def test_blur_and_noise_leave_the_answers_alone(size: int, sigma: float, every: int) -> None:
    drawn = clips(size, every=every)
    found = [read(noisy(blurred(clip.video, sigma), 0.05, seed)) for seed, clip in enumerate(drawn)]
    right = sum(one == clip.labels for one, clip in zip(found, drawn, strict=True))
    assert right >= 0.97 * len(drawn)


def test_images_have_colour_and_shape_but_no_motion() -> None:
    for clip in clips(64, num_frames=1, every=7):
        assert read(clip.video) == {**clip.labels, "motion": "none"}


@pytest.mark.parametrize("std", [0.0, 0.1])
def test_nothing_is_seen_on_an_empty_background(std: float) -> None:
    empty = noisy(torch.full((3, 8, 32, 32), -1.0), std, 0)
    assert read(empty) == {"colour": "none", "shape": "none", "motion": "none", "background": "black"}


def test_specks_do_not_count() -> None:
    clip = clip_of("left")
    video = clip.video.clone()
    video[:, ::3, 2:4, 30:32] = 1.0
    video[:, 1::3, 60:62, 5:7] = 1.0
    assert read(video) == clip.labels


def test_some_frames_without_a_shape_do_not_count() -> None:
    clip = clip_of("growing")
    video = clip.video.clone()
    video[:, [3, 7, 8]] = video[:, [3, 7, 8], :1, :1]
    assert read(video) == clip.labels


@pytest.mark.parametrize(
    ("motion", "backwards"),
    [("left", "right"), ("up", "down"), ("growing", "shrinking"), ("still", "still"), ("circling", "circling")],
)
def test_time_reversed_reads_as_the_opposite_motion(motion: str, backwards: str) -> None:
    assert read(clip_of(motion).video.flip(1))["motion"] == backwards


def test_half_precision_is_read_alike() -> None:
    clip = clip_of("down")
    assert read(clip.video.bfloat16()) == clip.labels


def test_fractions_count_each_attribute_and_all_of_them() -> None:
    metric = ShapesAccuracySpec().build()
    clip = clip_of("left")
    wrong = {**clip.labels, "motion": "right"}
    metric.update(torch.stack([clip.video] * 2), [clip.labels, wrong])
    metric.update(clip.video[None], [wrong])
    assert metric.compute() == {"colour": 1.0, "shape": 1.0, "motion": 1 / 3, "all": 1 / 3, "count": 3.0}


def test_attributes_that_nobody_asked_for_are_not_counted() -> None:
    metric = ShapesAccuracySpec().build()
    assert all(math.isnan(metric.compute()[name]) for name in (*ATTRIBUTES, "all"))
    clip = clip_of("left")
    metric.update(clip.video[None], [{"shape": clip.labels["shape"]}])
    result = metric.compute()
    assert (result["shape"], result["all"], result["count"]) == (1.0, 1.0, 1.0)
    assert math.isnan(result["motion"])


@pytest.mark.parametrize(
    ("labels", "message"),
    [([], "1 videos but 0 labels"), ([{"mood": "happy"}], "have none of colour, shape, motion")],
)
def test_labels_that_do_not_fit_are_refused(labels: list[dict[str, str]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ShapesAccuracySpec().build().update(torch.zeros(1, 3, 4, 32, 32), labels)
