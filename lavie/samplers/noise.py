"""Noise that is a function of (seed, stage, purpose, step, frame) and of nothing else."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class NoiseSource:
    """The noise of one video in one stage.

    Every frame is drawn on the CPU, in float32, from a generator of its own. So a frame's noise does not depend on
    the batch, the number of frames, the order of draws, the number of threads, the device or any global state.
    """

    seed: int
    stage: str = "base"

    def draw(
        self, purpose: str, step: int, shape: tuple[int, int, int, int], first: int = 0
    ) -> Float[Tensor, "c f h w"]:
        """Return a standard normal draw of shape (channels, frames, height, width), from frame `first` on."""
        channels, num_frames, height, width = shape
        noise = torch.empty(shape, dtype=torch.float32, device="cpu")
        for frame in range(num_frames):
            generator = self.generator(purpose, step, first + frame)
            size = (channels, height, width)
            noise[:, frame] = torch.randn(size, generator=generator, dtype=torch.float32, device="cpu")
        return noise

    def generator(self, purpose: str, step: int = 0, frame: int = 0) -> torch.Generator:
        """Return a generator on the CPU for the draws of one purpose, step and frame."""
        return torch.Generator("cpu").manual_seed(self._frame_seed(purpose, step, frame))

    def _frame_seed(self, purpose: str, step: int, frame: int) -> int:
        key = json.dumps([self.seed, self.stage, purpose, step, frame]).encode()
        return int.from_bytes(blake2b(key, digest_size=4).digest(), "little")  # torch uses 32 bits of a CPU seed


def batch_noise(
    sources: Sequence[NoiseSource], purpose: str, first: int = 0
) -> Callable[[int, tuple[int, ...]], Float[Tensor, "b c f h w"]]:
    """Return `noise(step, shape)` for a batch, sample i drawing from the i-th source, from frame `first` on."""

    def noise(step: int, shape: tuple[int, ...]) -> Float[Tensor, "b c f h w"]:
        batch, channels, num_frames, height, width = shape
        assert batch == len(sources), f"a batch of {batch} for {len(sources)} noise sources"
        size = (channels, num_frames, height, width)
        return torch.stack([source.draw(purpose, step, size, first) for source in sources])

    return noise
