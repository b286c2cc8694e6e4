import pytest
import torch
from torch import Tensor

from lavie.data.shapes import ShapesSpec
from lavie.metrics.drift import DriftSpec, drift


def clip(number: int, num_frames: int = 8) -> Tensor:
    """Return a video of the world `shapes`."""
    return ShapesSpec(num_frames=num_frames, height=32, width=32).build().clip(number).video


def test_a_video_that_repeats_itself_does_not_drift() -> None:
    metric = DriftSpec(segment=8).build()
    metric.update(clip(1).repeat(1, 3, 1, 1)[None])
    found = metric.compute()
    assert found.pop("count") == 1
    assert set(found) == {f"{name}_{k}" for name in ("colour", "sharpness", "identity") for k in (2, 3)}
    assert max(map(abs, found.values())) < 1e-6


def test_a_tint_is_a_drift_of_colour_in_grey_levels() -> None:
    first = clip(1) * 0.5
    found = drift(first + torch.tensor([30 / 127.5, 0, 0])[:, None, None, None], first)
    assert found["colour"] == pytest.approx(30 / 3**0.5, rel=1e-3)
    assert found["sharpness"] == pytest.approx(0, abs=1e-3)


def test_half_the_contrast_is_one_octave_less_sharp() -> None:
    first = torch.randn(3, 8, 32, 32, generator=torch.Generator().manual_seed(0))
    assert drift(first / 2, first)["sharpness"] == pytest.approx(-1, abs=0.05)


def test_blur_lowers_sharpness_and_leaves_the_mean_colour() -> None:
    first = clip(2)
    blurred = torch.nn.functional.avg_pool2d(first.flatten(0, 1)[:, None], 5, 1, 2, count_include_pad=False)
    found = drift(blurred[:, 0].unflatten(0, (3, 8)), first)
    assert found["sharpness"] < -0.2
    assert found["colour"] < 5


def test_moving_is_no_loss_of_identity_but_another_shape_and_colour_is() -> None:
    first = clip(1)
    moved = drift(first.roll((5, 7), dims=(2, 3)), first)["identity"]
    others = [drift(clip(number), first)["identity"] for number in range(2, 12)]
    assert moved < 0.05
    assert min(others) > 2 * moved
    assert max(others) <= 1


def test_identity_is_symmetric() -> None:
    one, other = clip(1), clip(4)
    assert drift(one, other)["identity"] == pytest.approx(drift(other, one)["identity"])


def test_numbers_are_means_over_videos_in_batches_of_any_size() -> None:
    videos = torch.stack([clip(number, 24) for number in (1, 2, 3)])
    together, apart = (DriftSpec(segment=8).build() for _ in range(2))
    together.update(videos)
    for video in videos:
        apart.update(video[None])
    assert together.compute() == pytest.approx(apart.compute())
    assert together.compute()["count"] == 3


def test_a_rest_of_frames_is_shared_among_the_segments() -> None:
    metric = DriftSpec(segment=8).build()
    metric.update(clip(1, 23)[None])
    assert "colour_2" in metric.compute()
    assert "colour_3" not in metric.compute()


def test_videos_of_one_segment_are_refused() -> None:
    with pytest.raises(ValueError, match=r"15 frames are no two segments of 8; .* make them shorter"):
        DriftSpec(segment=8).build().update(clip(1, 15)[None])
