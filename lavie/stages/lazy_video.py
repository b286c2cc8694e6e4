"""Videos whose pixels are made when they are asked for: whole, they may not fit into memory."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from lavie.blocks.autoencoder import Autoencoder
from lavie.video import Picture, to_frames

CHUNK_PIXELS = 2**22
"""Pixels, over all frames, that are decoded at a time: one frame of 1280×2048 or 25 of 320×512."""


def at_once(height: int, width: int) -> int:
    """Return how many frames of a size are decoded at a time."""
    return max(CHUNK_PIXELS // (height * width), 1)


class LazyVideo(ABC):
    """A batch of videos of one size: pixels in [-1, 1], float32, on the CPU."""

    batch_size: int
    num_frames: int
    height: int
    width: int
    fps: float

    @abstractmethod
    def frames(self, start: int, stop: int) -> Float[Tensor, "b 3 n h w"]:
        """Return the frames from `start` up to, not including, `stop`."""

    @abstractmethod
    def select(self, frames: Sequence[int]) -> "LazyVideo":
        """Return a video of some of the frames, in the order given."""

    @abstractmethod
    def split(self) -> Sequence["LazyVideo"]:
        """Return the videos of the batch, one by one."""

    def chunks(self, size: int) -> Iterator[Float[Tensor, "b 3 n h w"]]:
        """Yield all frames in order, `size` at a time."""
        for start in range(0, self.num_frames, size):
            yield self.frames(start, min(start + size, self.num_frames))

    def pictures(self) -> Iterator[Picture]:
        """Yield the frames of a single video as bytes; only a few of them are pixels at a time.

        Raises:
            VideoError: if pixels are not numbers.
        """
        assert self.batch_size == 1, "split the batch first"
        for frames in self.chunks(at_once(self.height, self.width)):
            yield from to_frames(frames[0])

    def video(self) -> Float[Tensor, "b 3 f h w"]:
        """Return all frames at once."""
        return self.frames(0, self.num_frames)

    @abstractmethod
    def encode(self, autoencoder: Autoencoder, generator: torch.Generator | None = None) -> Float[Tensor, "b c f p q"]:
        """Return the latent of all frames; with a generator a draw from the posterior."""


@torch.no_grad()
def encoded(
    video: LazyVideo, autoencoder: Autoencoder, generator: torch.Generator | None
) -> Float[Tensor, "b c f p q"]:
    """Encode a video, a few frames being pixels at a time; draws are made frame by frame, whatever that number is."""
    weight = autoencoder.anchor
    size = at_once(video.height, video.width) if generator is None else 1
    return torch.cat([autoencoder.encode(each.to(weight), generator) for each in video.chunks(size)], dim=2)


@final
class PixelVideo(LazyVideo):
    """Videos that are there already."""

    def __init__(self, video: Float[Tensor, "b 3 f h w"], fps: float) -> None:
        self.pixels = video
        self.batch_size, _, self.num_frames, self.height, self.width = video.shape
        self.fps = fps

    def frames(self, start: int, stop: int) -> Float[Tensor, "b 3 n h w"]:
        """Return the frames from `start` up to, not including, `stop`."""
        return self.pixels[:, :, start:stop].float().cpu()

    def select(self, frames: Sequence[int]) -> "PixelVideo":
        """Return a video of some of the frames, in the order given."""
        return PixelVideo(self.pixels[:, :, list(frames)], self.fps)

    def split(self) -> Sequence["PixelVideo"]:
        """Return the videos of the batch, one by one."""
        return [PixelVideo(each, self.fps) for each in torch.split(self.pixels, 1)]

    def encode(self, autoencoder: Autoencoder, generator: torch.Generator | None = None) -> Float[Tensor, "b c f p q"]:
        """Return the latent of all frames; with a generator a draw from the posterior."""
        return encoded(self, autoencoder, generator)


@final
class LatentVideo(LazyVideo):
    """Videos as latents, with the autoencoder that makes pixels of them."""

    def __init__(self, latent: Float[Tensor, "b c f p q"], autoencoder: Autoencoder, fps: float) -> None:
        self.latent = latent
        self.autoencoder = autoencoder
        self.batch_size, _, self.num_frames, height, width = latent.shape
        self.height, self.width = height * autoencoder.factor, width * autoencoder.factor
        self.fps = fps

    @torch.no_grad()
    def frames(self, start: int, stop: int) -> Float[Tensor, "b 3 n h w"]:
        """Decode the frames from `start` up to, not including, `stop`."""
        latent = self.latent[:, :, start:stop].to(self.autoencoder.anchor)
        return self.autoencoder.decode(latent).float().clamp(-1, 1).cpu()

    def select(self, frames: Sequence[int]) -> "LatentVideo":
        """Return a video of some of the frames, in the order given."""
        return LatentVideo(self.latent[:, :, list(frames)], self.autoencoder, self.fps)

    def split(self) -> Sequence["LatentVideo"]:
        """Return the videos of the batch, one by one."""
        return [LatentVideo(each, self.autoencoder, self.fps) for each in torch.split(self.latent, 1)]

    @torch.no_grad()
    def encode(self, autoencoder: Autoencoder, generator: torch.Generator | None = None) -> Float[Tensor, "b c f p q"]:
        """Return the latent itself where that is what the autoencoder decodes; with a generator a draw, from pixels.

        Decoding and encoding it again would only lose detail. Autoencoders are the same if their weights are, since
        every stage of a cascade loads its own: LaVie's base stage and interpolation both have Stable Diffusion's.
        """
        if generator is None and are_same(autoencoder, self.autoencoder):
            return self.latent.to(autoencoder.anchor)
        return encoded(self, autoencoder, generator)


def are_same(one: Autoencoder, other: Autoencoder) -> bool:
    """Tell whether two autoencoders are one, or alike in every layer, weight and scale."""
    if one is other:
        return True
    if (type(one), one.scaling_factor, repr(one)) != (type(other), other.scaling_factor, repr(other)):
        return False
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(mine.dtype == its.dtype and torch.equal(mine, its.to(mine.device)) for mine, its in pairs)
