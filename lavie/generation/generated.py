"""A video that was made, with the record of what made it; its pixels are decoded as they are needed."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float
from torch import Tensor

from lavie.generation.memory import answering
from lavie.generation.record import Record, comment_of, sidecar_of, write_sidecar
from lavie.stages import LazyVideo
from lavie.video import Frames, Picture, check_format, enlarge, write_video

OnFrame = Callable[[int, Picture], None]
"""Called with the number and the pixels of every frame once the file has taken it."""


@dataclass(frozen=True, eq=False)
class GeneratedVideo:
    """A video and the record of what made it; pixels are decoded when they are asked for."""

    source: LazyVideo
    """One video."""
    record: Record
    remedy: str = "ask for a smaller size"
    """What helps where there is too little memory for its pixels."""
    taken: Sequence[str] = ()
    """What was given up when memory ran out, so far: decoding may add to it."""

    @property
    def fps(self) -> float:
        """Return the frames per second."""
        return self.source.fps

    @cached_property
    def video(self) -> Float[Tensor, "3 f h w"]:
        """Pixels in [-1, 1], all at once."""
        return self.source.video()[0]

    def pictures(self) -> Iterator[Picture]:
        """Yield the frames as files hold them, one by one; no more than a few of them are in memory.

        Raises:
            VideoError: if pixels are not numbers.
            OutOfMemoryError: naming the remedy.
        """
        device = self.record.environment.get("device", "this machine")
        with answering(device, "decoding", self.remedy):
            yield from self.source.pictures()

    def frames(self) -> Frames:
        """Return the whole video as files hold it."""
        return np.stack(list(self.pictures()))

    def save(self, path: str | Path, scale: int = 1, on_frame: OnFrame | None = None) -> Path:
        """Write an .mp4, .webm, .gif or folder of PNG files (.frames), and the record beside it.

        Each pixel becomes a square of `scale` × `scale`. Frames are decoded and written a few at a time.

        Raises:
            VideoError: naming the path, if the format cannot hold the video or the disk does not take it.
        """
        path, start = Path(path), time.perf_counter()
        check_format(path, self.source.height * scale, self.source.width * scale, self.fps)
        recipe = self.record.recipe.model_copy(update={"scale": scale})
        record = self.record.model_copy(update={"recipe": recipe})
        with suppress(OSError):
            sidecar_of(path).unlink()  # it would tell of the video that is replaced
        write_video(path, self._enlarged(scale, on_frame), self.fps, comment_of(record))
        seconds = {**record.seconds, "write": round(time.perf_counter() - start, 3)}
        memory = (*record.memory, *self.taken)
        write_sidecar(path, record.model_copy(update={"seconds": seconds, "memory": memory}))
        return path

    def _enlarged(self, scale: int, on_frame: OnFrame | None) -> Iterator[Picture]:
        for number, picture in enumerate(self.pictures()):
            yield enlarge(picture, scale)
            if on_frame is not None:
                on_frame(number, picture)


__all__ = ["GeneratedVideo", "OnFrame"]
