"""Pixels as files hold them and as networks see them."""

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from lavie.errors import VideoError

Picture = UInt8[np.ndarray, "h w 3"]
"""One frame as files hold it."""
Frames = UInt8[np.ndarray, "f h w 3"]
"""A video as files hold it: pictures in a row."""

MAX_SCALE = 64
"""Largest square that a pixel is written as."""


def to_frames(video: Float[Tensor, "3 f h w"]) -> Frames:
    """Turn pixels in [-1, 1] into bytes; what lies outside is clipped.

    Raises:
        VideoError: if pixels are not numbers.
    """
    video = video.detach().float().cpu()
    if not torch.isfinite(video).all():
        raise VideoError("the video has pixels that are no numbers (NaN or infinite); float32 may help")
    pixels = (video.clamp(-1, 1) + 1) * 127.5
    return rearrange(pixels.round().to(torch.uint8).numpy(), "c f h w -> f h w c")


def to_video(frames: Frames) -> Float[Tensor, "3 f h w"]:
    """Turn bytes into pixels in [-1, 1]."""
    return rearrange(torch.from_numpy(frames.copy()).float() / 127.5 - 1, "f h w c -> c f h w")


def enlarge(pictures: UInt8[np.ndarray, "*f h w 3"], scale: int) -> UInt8[np.ndarray, "*f tall wide 3"]:
    """Make every pixel of one or many pictures a square of `scale` × `scale`, edges kept sharp.

    Raises:
        VideoError: if the scale is not in [1, 64].
    """
    if not 1 <= scale <= MAX_SCALE:
        raise VideoError(f"scale must be in [1, {MAX_SCALE}], got {scale}")
    return pictures if scale == 1 else pictures.repeat(scale, axis=-3).repeat(scale, axis=-2)


__all__ = ["MAX_SCALE", "Frames", "Picture", "enlarge", "to_frames", "to_video"]
