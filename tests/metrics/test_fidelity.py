"""PSNR, SSIM and flicker do what their formulas say."""

import math

import pytest
import torch
from torch import Tensor

from lavie.metrics.fidelity import flicker, psnr, ssim


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_equal_videos_are_perfect() -> None:
    video = drawn(2, 3, 4, 16, 16)
    assert psnr(video, video).tolist() == [math.inf, math.inf]
    torch.testing.assert_close(ssim(video, video), torch.ones(2, dtype=torch.float64))
    assert flicker(video, video).tolist() == [0.0, 0.0]


def test_videos_of_a_batch_are_measured_one_by_one() -> None:
    video, reference = drawn(3, 3, 4, 16, 16), drawn(3, 3, 4, 16, 16, seed=1)
    for measure in (psnr, ssim, flicker):
        alone = [measure(each, other) for each, other in zip(video.split(1), reference.split(1), strict=True)]
        torch.testing.assert_close(measure(video, reference), torch.cat(alone))


@pytest.mark.parametrize("offset", [0.2, 0.002])
def test_psnr_of_a_constant_error_is_that_of_bytes(offset: float) -> None:
    video = drawn(1, 3, 4, 8, 8).double()
    levels = 127.5 * offset
    assert psnr(video + offset, video).item() == pytest.approx(20 * math.log10(255 / levels))


def test_one_bad_frame_counts_by_its_squared_error() -> None:
    video = torch.zeros(1, 3, 4, 8, 8)
    worse = video.clone()
    worse[:, :, 2] = 0.2
    assert psnr(worse, video).item() == pytest.approx(10 * math.log10(4 / (0.04 / 4)))


def test_ssim_is_the_formula_of_the_paper() -> None:
    """Written out for every window of a frame, on bytes."""
    video, reference = drawn(1, 1, 1, 13, 12), drawn(1, 1, 1, 13, 12, seed=1)
    x, y = ((each[0, 0, 0].double() + 1) * 127.5 for each in (video, reference))
    weights = torch.tensor(
        [[math.exp(-((i - 5) ** 2 + (j - 5) ** 2) / (2 * 1.5**2)) for j in range(11)] for i in range(11)],
        dtype=torch.float64,
    )
    weights /= weights.sum()
    found = []
    for row in range(3):
        for column in range(2):
            a, b = (each[row : row + 11, column : column + 11] for each in (x, y))
            mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
            var_a, var_b = (weights * (a - mean_a) ** 2).sum(), (weights * (b - mean_b) ** 2).sum()
            both = (weights * (a - mean_a) * (b - mean_b)).sum()
            c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
            top = (2 * mean_a * mean_b + c1) * (2 * both + c2)
            found.append(float(top / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))))
    assert ssim(video, reference).item() == pytest.approx(sum(found) / len(found))


def test_ssim_falls_as_noise_grows_and_is_symmetric() -> None:
    video = drawn(1, 3, 2, 16, 16)
    noise = drawn(1, 3, 2, 16, 16, seed=1)
    near, far = (ssim(video + scale * noise, video).item() for scale in (0.1, 0.5))
    assert 0 < far < near < 1
    torch.testing.assert_close(ssim(video, noise), ssim(noise, video))


def test_frames_smaller_than_the_window_are_refused() -> None:
    video = drawn(1, 3, 2, 16, 10)
    with pytest.raises(ValueError, match="frames of 16×10 are smaller than SSIM's window of 11×11"):
        ssim(video, video)


def test_what_is_wrong_in_all_frames_alike_does_not_flicker() -> None:
    video = drawn(1, 3, 5, 8, 8).double()
    assert flicker(video + drawn(1, 3, 1, 8, 8, seed=1).double(), video).item() == pytest.approx(0, abs=1e-9)


def test_an_error_in_every_other_frame_flickers_by_its_size() -> None:
    video = drawn(1, 3, 6, 8, 8).double()
    worse = video.clone()
    worse[:, :, ::2] += 10 / 127.5
    assert flicker(worse, video).item() == pytest.approx(10)


def test_errors_drawn_anew_in_each_frame_count_by_the_square_root_of_two() -> None:
    video = torch.zeros(1, 3, 64, 32, 32)
    noise = torch.randn(video.shape, generator=torch.Generator().manual_seed(0)) * 4 / 127.5
    assert flicker(noise, video).item() == pytest.approx(4 * math.sqrt(2), rel=0.02)


def test_a_single_frame_cannot_flicker() -> None:
    with pytest.raises(ValueError, match="between frames, but the video has 1"):
        flicker(torch.zeros(1, 3, 1, 8, 8), torch.zeros(1, 3, 1, 8, 8))
