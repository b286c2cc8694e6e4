"""Views of activations for kernels that only know images: no copy where memory is in `b f h w c` order.

All of them merge and split axes in that order and only then name them otherwise. Merged as `b c …`, a batch of one
gets a stride by which PyTorch no longer recognises channels-last memory, and every norm and convolution copies.
"""

from collections.abc import Callable

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

Join = Callable[[Tensor, Tensor], Tensor]
"""`(x, skip) -> both`: how what comes up a UNet meets what comes across it, channels of `x` first."""


def fold_frames(x: Float[Tensor, "b c f h w"]) -> Float[Tensor, "n c h w"]:
    """Return all frames of all videos as a batch of images."""
    return rearrange(rearrange(x, "b c f h w -> (b f) h w c"), "n h w c -> n c h w")


def unfold_frames(frames: Float[Tensor, "n c h w"], num_frames: int) -> Float[Tensor, "b c f h w"]:
    """Undo `fold_frames`."""
    return rearrange(rearrange(frames, "n c h w -> n h w c"), "(b f) h w c -> b c f h w", f=num_frames)


def stack_frames(x: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b c r w"]:
    """Return the frames of each video below one another, as one tall image."""
    return rearrange(rearrange(x, "b c f h w -> b (f h) w c"), "b r w c -> b c r w")


def unstack_frames(tall: Float[Tensor, "b c r w"], num_frames: int) -> Float[Tensor, "b c f h w"]:
    """Undo `stack_frames`."""
    return rearrange(rearrange(tall, "b c r w -> b r w c"), "b (f h) w c -> b c f h w", f=num_frames)


def flatten_space(x: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b c f n"]:
    """Return images with time along one side and all positions of a frame along the other."""
    return rearrange(rearrange(x, "b c f h w -> b f (h w) c"), "b f n c -> b c f n")


def unflatten_space(flat: Float[Tensor, "b c f n"], height: int) -> Float[Tensor, "b c f h w"]:
    """Undo `flatten_space`."""
    return rearrange(rearrange(flat, "b c f n -> b f n c"), "b f (h w) c -> b c f h w", h=height)


def join_channels(x: Float[Tensor, "b c f h w"], more: Float[Tensor, "b d f h w"]) -> Float[Tensor, "b cd f h w"]:
    """Return the channels of both, those of `x` first."""
    last = [rearrange(part, "b c f h w -> b f h w c") for part in (x, more)]
    return rearrange(torch.cat(last, dim=-1), "b f h w c -> b c f h w")
