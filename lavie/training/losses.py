"""Loss functions of training."""

import torch
from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor


def contrast_weight(video: Float[Tensor, "b c f h w"], emphasis: float) -> Float[Tensor, "b 1 f h w"]:
    """Weigh pixels that differ from their frame's background by up to 1 + emphasis, the others by 1.

    The background is the median colour of the frame's border. Small objects would otherwise hardly count.
    """
    border = torch.cat([video[..., 0, :], video[..., -1, :], video[..., :, 0], video[..., :, -1]], dim=-1)
    background = rearrange(border.median(dim=-1).values, "b c f -> b c f 1 1")
    difference = (video - background).abs().amax(dim=1, keepdim=True)
    return 1 + emphasis * (4 * difference).clamp(max=1)


def weighted_l1(
    prediction: Float[Tensor, "b c f h w"], target: Float[Tensor, "b c f h w"], weight: Float[Tensor, "b 1 f h w"]
) -> Float[Tensor, ""]:
    """Return the weighted mean of absolute differences; only the proportions of the weights matter."""
    return ((prediction - target).abs() * weight).mean() / weight.mean()


def kl_divergence(mean: Float[Tensor, "b c f h w"], log_variance: Float[Tensor, "b c f h w"]) -> Float[Tensor, ""]:
    """Return KL(posterior ‖ N(0, 1)) in nats per frame (arXiv 1312.6114, appendix B)."""
    divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)
    return reduce(divergence, "b c f h w -> b f", "sum").mean()


def video_and_image_loss(
    prediction: Float[Tensor, "b c f h w"],
    target: Float[Tensor, "b c f h w"],
    num_images: int,
    first_frame_weight: float = 1.0,
) -> tuple[Float[Tensor, ""] | None, Float[Tensor, ""] | None]:
    """Return the mean squared errors of the video frames and of the last `num_images` frames, None where empty.

    Among the video frames the first counts `first_frame_weight` times.
    """
    error = reduce((prediction - target).square(), "b c f h w -> f", "mean")
    num_frames = len(error) - num_images
    weight = torch.ones_like(error[:num_frames])
    weight[:1] = first_frame_weight
    video = (error[:num_frames] * weight).sum() / weight.sum() if num_frames else None
    return video, error[num_frames:].mean() if num_images else None


def psnr(prediction: Tensor, target: Tensor) -> float:
    """Return the peak signal-to-noise ratio in dB of pixels in [-1, 1], over all of both tensors."""
    return float(10 * torch.log10(4 / (prediction - target).square().mean().clamp(min=1e-10)))
