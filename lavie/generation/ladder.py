"""The ladder: what is given up, a rung at a time, when memory runs out; the video stays the same."""

import gc
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from lavie.blocks.autoencoder import Autoencoder, AutoencoderKL
from lavie.errors import OutOfMemoryError
from lavie.generation.memory import is_out_of_memory
from lavie.planning import CHUNKS, FEATURES
from lavie.planning.process import trim
from lavie.stages import LatentDiffusion, LazyVideo, Stage

T = TypeVar("T")


@final
class Ladder:
    """Does again what ran out of memory, one rung further down; what was given up stays so for what comes later."""

    def __init__(self, stage: Stage, device: str, on_note: Callable[[str], None] | None = None) -> None:
        self.taken: list[str] = []
        """What was given up so far, and while what was being done."""
        self._parts = [part for part in stage.parts().values() if isinstance(part, LatentDiffusion)]
        self._device = device
        self._note = on_note
        self._releases = self._release()
        self._pieces = self._smaller_pieces()

    def climb_down(self, doing: str, remedy: str, make: Callable[[], T], *, codes: bool = True) -> T:
        """Return what `make` makes, taking rungs for as long as it runs out of memory.

        `codes` tells whether it encodes or decodes pixels, which can be done in smaller pieces.

        Raises:
            OutOfMemoryError: saying what was given up in vain, and the remedy.
        """
        while True:
            try:
                return make()
            except (MemoryError, RuntimeError) as error:
                if isinstance(error, OutOfMemoryError) or not is_out_of_memory(error):
                    raise
            # Only here the error is gone, and with it the tensors of all that it passed through.
            rung = next(self._releases, None) or (next(self._pieces, None) if codes else None)
            _give_back()
            if rung is None:
                raise OutOfMemoryError(f"out of memory on {self._device} while {doing}: {remedy}")
            self.taken.append(f"out of memory while {doing}: {rung}")
            if self._note is not None:
                self._note(f"note: {self.taken[-1]}")

    def _release(self) -> Iterator[str]:
        """Let go of what is not at work."""
        if any([part.residence.release() for part in self._parts]):
            yield "networks that are not at work are released from now on, and read again when they are"

    def _smaller_pieces(self) -> Iterator[str]:
        """Let autoencoders work on less at a time: the same pixels, up to rounding."""
        networks = {part.autoencoder for part in self._parts if isinstance(part.autoencoder, AutoencoderKL)}
        for chunk in CHUNKS:
            larger = [network for network in networks if network.decode_chunk > chunk]
            for network in larger:
                network.decode_chunk = chunk
            if larger:
                yield f"frames are decoded {chunk} at a time"
        for side in FEATURES:
            larger = [network for network in networks if network.tile is None or network.tile > side]
            for network in larger:
                network.tile = side
            if larger:
                yield f"frames are decoded in tiles of {side}×{side} features"


def _give_back() -> None:
    gc.collect()
    trim()
    torch.cuda.empty_cache()  # which does nothing where CUDA is not in use


@final
class SteadyVideo(LazyVideo):
    """A video that is decoded on a ladder."""

    def __init__(self, video: LazyVideo, ladder: Ladder, remedy: str) -> None:
        self.video_below, self.ladder, self.remedy = video, ladder, remedy
        self.batch_size, self.num_frames, self.fps = video.batch_size, video.num_frames, video.fps
        self.height, self.width = video.height, video.width

    def frames(self, start: int, stop: int) -> Float[Tensor, "b 3 n h w"]:
        """Return the frames from `start` up to, not including, `stop`."""
        return self.ladder.climb_down("decoding", self.remedy, lambda: self.video_below.frames(start, stop))

    def select(self, frames: Sequence[int]) -> "SteadyVideo":
        """Return a video of some of the frames, in the order given."""
        return SteadyVideo(self.video_below.select(frames), self.ladder, self.remedy)

    def split(self) -> Sequence["SteadyVideo"]:
        """Return the videos of the batch, one by one."""
        return [SteadyVideo(each, self.ladder, self.remedy) for each in self.video_below.split()]

    def encode(self, autoencoder: Autoencoder, generator: torch.Generator | None = None) -> Float[Tensor, "b c f p q"]:
        """Return the latent of all frames; with a generator a draw from the posterior."""
        return self.video_below.encode(autoencoder, generator)


__all__ = ["Ladder", "SteadyVideo"]
