"""How near a video comes to the one it should be: PSNR, SSIM and flicker, a number per video."""

import torch
import torch.nn.functional as F  # noqa: N812
from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor

_RANGE = 2.0
"""Pixels lie in [-1, 1]."""
_GREY_LEVELS = 127.5
"""Of 8-bit video, in one unit of pixels."""
_WINDOW, _SIGMA = 11, 1.5
_K1, _K2 = 0.01, 0.03


def psnr(video: Float[Tensor, "b c f h w"], reference: Float[Tensor, "b c f h w"]) -> Float[Tensor, " b"]:
    """Return the peak signal-to-noise ratio in dB: 10·log₁₀(2² / mean squared error), infinite for equal videos.

    The mean is taken over all pixels, channels and frames of a video, and the logarithm after it, so that single
    perfect frames do not decide the result.
    """
    error = reduce((video.double() - reference.double()).square(), "b c f h w -> b", "mean")
    return 10 * torch.log10(_RANGE**2 / error)


def ssim(video: Float[Tensor, "b c f h w"], reference: Float[Tensor, "b c f h w"]) -> Float[Tensor, " b"]:
    """Return the mean structural similarity of the frames, in [-1, 1]; 1 for equal videos (Wang et al. 2004, eq. 13).

    The window is the paper's: Gaussian, 11×11 pixels with a standard deviation of 1.5, only where it lies inside the
    frame; K₁ = 0.01, K₂ = 0.03, variances without Bessel's correction. Unlike the paper's, which sees luminance only,
    the mean is over red, green and blue, so that colours that are equally bright count as different.

    Raises:
        ValueError: if frames are smaller than the window.
    """
    if min(video.shape[-2:]) < _WINDOW:
        size = "×".join(map(str, video.shape[-2:]))
        raise ValueError(f"frames of {size} are smaller than SSIM's window of {_WINDOW}×{_WINDOW}")
    per_frame = [_ssim(video[:, :, index], reference[:, :, index]) for index in range(video.shape[2])]
    return torch.stack(per_frame).mean(dim=0)


def flicker(video: Float[Tensor, "b c f h w"], reference: Float[Tensor, "b c f h w"]) -> Float[Tensor, " b"]:
    """Return by how many grey levels of 255 the changes from frame to frame are wrong: 0 if all changes are right.

    With x the video and y the reference, 127.5 · √ mean[((xₜ₊₁ - xₜ) - (yₜ₊₁ - yₜ))²] over pixels, channels and
    t: dtSSD (Erofeev et al. 2015, "Perceptually motivated benchmark for video matting") over a whole video. Nothing
    is warped: the reference moves as it should. What is wrong in all frames alike does not flicker and is left to PSNR;
    errors that are drawn anew in each frame count √2-fold.

    Raises:
        ValueError: if there are fewer than two frames.
    """
    if video.shape[2] < 2:
        raise ValueError(f"flicker is between frames, but the video has {video.shape[2]}")
    changes = (video.double() - reference.double()).diff(dim=2)
    return _GREY_LEVELS * reduce(changes.square(), "b c f h w -> b", "mean").sqrt()


def _ssim(frame: Float[Tensor, "b c h w"], reference: Float[Tensor, "b c h w"]) -> Float[Tensor, " b"]:
    c1, c2 = (_K1 * _RANGE) ** 2, (_K2 * _RANGE) ** 2
    x, y = frame.double() + _RANGE / 2, reference.double() + _RANGE / 2  # black is 0: means count, not only differences
    mean_x, mean_y = _windowed(x), _windowed(y)
    spread = _windowed(x * x) + _windowed(y * y) - mean_x**2 - mean_y**2
    covariance = _windowed(x * y) - mean_x * mean_y
    similar = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return reduce(similar / ((mean_x**2 + mean_y**2 + c1) * (spread + c2)), "b c h w -> b", "mean")


def _windowed(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c p q"]:
    """Take the mean in a Gaussian window around every pixel that has a whole one."""
    ticks = torch.arange(_WINDOW, dtype=x.dtype, device=x.device) - _WINDOW // 2
    window = torch.softmax(-(ticks**2) / (2 * _SIGMA**2), dim=0)
    single = rearrange(x, "b c h w -> (b c) 1 h w")
    across = F.conv2d(F.conv2d(single, rearrange(window, "k -> 1 1 1 k")), rearrange(window, "k -> 1 1 k 1"))
    return rearrange(across, "(b c) 1 p q -> b c p q", b=len(x))


__all__ = ["flicker", "psnr", "ssim"]
