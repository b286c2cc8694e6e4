"""Clips that a stage is to make again: of the world `shapes`, held out of training, and of video files."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
from PIL import Image

from lavie.data.base import Clip
from lavie.data.shapes import ShapesSpec
from lavie.errors import VideoError
from lavie.stages import VideoShape
from lavie.video import Frames, read_video, to_video

SPLITS: tuple[str, ...] = tuple(
    split for split in get_args(ShapesSpec.model_fields["split"].annotation) if split != "train"
)
"""Parts of the world `shapes` that are not trained on."""
FIRST_CLIP = 1000
"""Training looks at a split's first clips to say how it gets on; measurements use others."""
WINDOWS_PER_FILE = 2
FILES = "files"


@dataclass(frozen=True)
class Sample:
    """A clip, and what it is called in results."""

    group: str
    """Results are summed up by group."""
    label: str
    """And listed by label."""
    name: str
    clip: Clip


def shapes(shape: VideoShape, split: str, num_clips: int) -> Iterator[Sample]:
    """Draw clips of the world `shapes` one by one, labelled with their motion."""
    size = {"num_frames": shape.num_frames, "height": shape.height, "width": shape.width, "fps": shape.fps}
    dataset = ShapesSpec.model_validate({"split": split, **size}).build()
    for index in range(FIRST_CLIP, FIRST_CLIP + num_clips):
        clip = dataset.clip(index)
        yield Sample(split, clip.labels["motion"], f"{split} {index}", clip)


def files(shape: VideoShape, paths: Sequence[Path]) -> list[Sample]:
    """Cut clips out of video files: the middle of the picture, shrunk to the size of `shape`.

    A file gives up to two clips that do not overlap, its beginning and its end; a file that is shorter than one gives
    itself. They have no caption.

    Raises:
        VideoError: naming the file, if it cannot be read or is smaller than the size.
    """
    return [sample for path in paths for sample in _cut(path, shape)]


def _cut(path: Path, shape: VideoShape) -> list[Sample]:
    file = read_video(path)
    total, height, width, _ = file.frames.shape
    if height < shape.height or width < shape.width:
        raise VideoError(f"{path}: {height}×{width} pixels, but the comparison needs {shape.height}×{shape.width}")
    length = min(shape.num_frames, total)
    count = min(WINDOWS_PER_FILE, total // length)
    starts = [round(each) for each in np.linspace(0, total - length, count)]
    return [
        Sample(
            FILES,
            path.name,
            f"{path.name} {start}",
            Clip(to_video(_shrunk(file.frames[start : start + length], shape)), "", file.fps, {"file": path.name}),
        )
        for start in starts
    ]


def _shrunk(frames: Frames, shape: VideoShape) -> Frames:
    """Crop to the shape's proportions around the middle, and shrink."""
    _, height, width, _ = frames.shape
    scale = min(height / shape.height, width / shape.width)
    half_h, half_w = shape.height * scale / 2, shape.width * scale / 2
    box = (width / 2 - half_w, height / 2 - half_h, width / 2 + half_w, height / 2 + half_h)
    size = (shape.width, shape.height)
    pictures = [Image.fromarray(each).resize(size, Image.Resampling.LANCZOS, box=box) for each in frames]
    return np.stack([np.asarray(picture) for picture in pictures])
