"""Pieces of another dataset's clips: some of the frames, a part of the picture."""

from dataclasses import replace
from typing import Annotated, Literal, final

import numpy as np
from pydantic import Field

from lavie.data.base import Clip, Dataset, DatasetSpec
from lavie.spec import Count, Size


class CropSpec(DatasetSpec):
    """A piece of every clip, at a place drawn per clip: patches, as super-resolution is trained on."""

    type: Literal["crop"] = "crop"
    clips: DatasetSpec
    """Where the clips come from."""
    num_frames: Count | None = None
    """Frames in a row that are kept; left out: all."""
    height: Size | None = None
    """Pixels that are kept; left out: all."""
    width: Size | None = None
    """Pixels that are kept; left out: all."""
    seed: Annotated[int, Field(ge=0, le=2**62)] = 0
    """Another seed, other places."""

    def build(self) -> "Crop":
        """Open the dataset."""
        return Crop(self, self.clips.build())


@final
class Crop(Dataset):
    """Pieces of clips; the n-th is cut at the same place every time."""

    def __init__(self, spec: CropSpec, clips: Dataset) -> None:
        self.spec = spec
        self.clips = clips

    def __len__(self) -> int:
        return len(self.clips)

    def clip(self, index: int) -> Clip:
        """Return a piece of one clip.

        Raises:
            IndexError: if `index` is not in [0, len).
            ValueError: if the clip is smaller than the piece.
        """
        clip, spec = self.clips.clip(index), self.spec
        rng = np.random.default_rng([spec.seed, index])
        wanted = {"num_frames": spec.num_frames, "height": spec.height, "width": spec.width}
        cuts = []
        for (name, size), whole in zip(wanted.items(), clip.video.shape[1:], strict=True):
            if size is not None and size > whole:
                raise ValueError(f"{name}: {size} of a clip that has only {whole}")
            start = 0 if size is None else int(rng.integers(whole - size + 1))
            cuts.append(slice(start, None if size is None else start + size))
        return replace(clip, video=clip.video[(slice(None), *cuts)])
