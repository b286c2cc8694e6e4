import math

import pytest
import torch

from lavie.training.losses import contrast_weight, kl_divergence, psnr, video_and_image_loss, weighted_l1


def test_pixels_unlike_the_background_weigh_more() -> None:
    video = torch.full((1, 3, 2, 8, 8), -0.5)
    video[0, 0, 1, 3:5, 3:5] = 1.0
    weight = contrast_weight(video, 4.0)
    assert torch.equal(weight[0, 0, 0], torch.ones(8, 8))
    assert float(weight[0, 0, 1].sum()) == 64 + 4 * 4


def test_the_background_of_each_frame_is_its_own() -> None:
    video = torch.linspace(-1, 1, 5).view(1, 1, 5, 1, 1).expand(1, 3, 5, 6, 6)
    assert torch.equal(contrast_weight(video, 4.0), torch.ones(1, 1, 5, 6, 6))


def test_only_the_proportions_of_weights_matter() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 1, 3, 1, 4, 4, generator=generator)
    weight = torch.rand(1, 1, 1, 4, 4, generator=generator)
    assert torch.allclose(weighted_l1(a, b, weight), weighted_l1(a, b, 7 * weight))
    assert torch.allclose(weighted_l1(a, b, torch.ones_like(weight)), (a - b).abs().mean())


def test_the_unit_normal_has_no_divergence_from_itself() -> None:
    zeros = torch.zeros(2, 3, 1, 2, 2)
    assert float(kl_divergence(zeros, zeros)) == 0.0
    assert float(kl_divergence(zeros + 1, zeros)) == pytest.approx(0.5 * 12)
    assert float(kl_divergence(zeros, zeros + 1)) == pytest.approx(0.5 * (math.e - 2) * 12)


def test_frames_and_images_are_averaged_apart() -> None:
    prediction, target = torch.zeros(2, 3, 5, 2, 2), torch.zeros(2, 3, 5, 2, 2)
    target[:, :, :3] = 2.0
    target[:, :, 3:] = 3.0
    video, image = video_and_image_loss(prediction, target, 2)
    assert video is not None
    assert image is not None
    assert (float(video), float(image)) == (4.0, 9.0)


def test_what_is_not_there_has_no_loss() -> None:
    same = torch.zeros(1, 1, 2, 1, 1)
    assert video_and_image_loss(same, same, 0)[1] is None
    assert video_and_image_loss(same, same, 2)[0] is None


def test_psnr_counts_tenfold_error_as_twenty_decibels() -> None:
    zero = torch.zeros(4, 4)
    assert psnr(zero + 2.0, zero) == pytest.approx(0.0, abs=1e-5)
    assert psnr(zero + 0.2, zero) == pytest.approx(20.0, abs=1e-4)


def test_the_first_frame_counts_as_often_as_asked() -> None:
    prediction, target = torch.zeros(1, 1, 4, 1, 1), torch.zeros(1, 1, 4, 1, 1)
    target[:, :, 0] = 3.0
    video, _ = video_and_image_loss(prediction, target, 1, first_frame_weight=7.0)
    assert video is not None
    assert float(video) == pytest.approx(9.0 * 7 / (7 + 2))
