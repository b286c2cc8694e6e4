"""Frames that a video starts from: read from files, brought to the size that the model wants, put in their places."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from lavie.errors import Fault, SpecError, VideoError
from lavie.generation.model import Model
from lavie.stages import Given, StageSpec, VideoShape
from lavie.stages.base import MAX_FRAMES
from lavie.stages.latent_diffusion import LatentDiffusionSpec
from lavie.stages.lazy_video import PixelVideo
from lavie.video import Picture, fit, read_image, read_video, to_video

_SPECS = "first-frame-tiny starts from frames, interpolation-tiny and upscaling-tiny from videos"


@dataclass(frozen=True)
class GivenFiles:
    """Files that frames come from; each may be left out."""

    first_frame: Path | None = None
    last_frame: Path | None = None
    video: Path | None = None
    """A video file or a folder of numbered pictures."""

    def __bool__(self) -> bool:
        return any(path is not None for path in (self.first_frame, self.last_frame, self.video))


@dataclass(frozen=True)
class Wish:
    """What a user says about the video; where it is None, the files and the model decide."""

    num_frames: int | None = None
    fps: float | None = None


def read_given(
    files: GivenFiles, model: Model, wish: Wish = Wish(), on_note: Callable[[str], None] = lambda _: None
) -> Given | None:
    """Read the frames that a model is to start from; None if there are no files.

    They are brought to the size that the model wants: cropped evenly to its proportions, then resized. `on_note` is
    told in a line what may surprise.

    Raises:
        SpecError: with the path `given`, if the model takes no frames, needs some, or has no place for these.
        VideoError: naming the file, if one cannot be read.
    """
    stage = model.first()
    wanted = stage.wanted()
    if not files:
        if isinstance(stage, LatentDiffusionSpec) and stage.source is not None and stage.source.build().is_required:
            raise _fault(f"{model.name} makes videos from videos; give it one")
        return None
    if wanted is None:
        raise _fault(f"{model.name} starts from text alone. Of the specs that ship with lavie, {_SPECS}")
    if files.video is None:
        return _from_pictures(files, stage, wanted, on_note)
    if files.first_frame is not None or files.last_frame is not None:
        raise _fault("a video is given, so no first and last frame can be")
    return _from_video(files.video, stage, wanted, wish, on_note)


def _fault(message: str) -> SpecError:
    return SpecError([Fault("given", message)])


def _from_pictures(files: GivenFiles, stage: StageSpec, wanted: VideoShape, on_note: Callable[[str], None]) -> Given:
    paths = [path for path in (files.first_frame, files.last_frame) if path is not None]
    pictures = [read_image(path) for path in paths]
    for path, picture in zip(paths, pictures, strict=True):
        _note_size(path, picture, wanted, on_note)
    frames = np.stack([fit(picture, wanted.height, wanted.width) for picture in pictures])
    video = PixelVideo(to_video(frames)[None], wanted.fps)
    last = stage.shape(Given(video).shape).num_frames - 1
    if len(paths) > 1 and last == 0:
        raise _fault("a first and a last frame need a video of at least 2 frames; ask for more")
    places = ([0] if files.first_frame is not None else []) + ([last] if files.last_frame is not None else [])
    return Given(video, tuple(places))


def _from_video(path: Path, stage: StageSpec, wanted: VideoShape, wish: Wish, on_note: Callable[[str], None]) -> Given:
    def fitted(number: int, picture: Picture) -> UInt8[np.ndarray, "tall wide 3"]:
        if number == 0:
            _note_size(path, picture, wanted, on_note)
        if number >= MAX_FRAMES:
            raise VideoError(f"{path}: more than {MAX_FRAMES:,} frames; cut it first")
        return fit(picture, wanted.height, wanted.width)

    file = read_video(path, keep=fitted)
    used = _used(len(file.frames), stage, wanted, wish)
    if (count := len(file.frames[used])) < len(file.frames):
        which = "last" if used.stop is None else "first"
        on_note(f"note: the {which} {count} of {len(file.frames)} frames of {path} are used")
    fps = wish.fps if wish.fps is not None and _keeps_rate(stage) else min(float(file.fps), 240.0)
    given = Given(PixelVideo(to_video(file.frames[used])[None], fps))
    made = stage.shape(given.shape)
    if _makes_more(stage) and count > 1:
        same = fps * (made.num_frames - 1) / (count - 1)
        if abs(made.fps / same - 1) > 0.01:
            speed = "slower" if made.fps < same else "faster"
            on_note(f"note: at {made.fps:g} frames per second it moves {speed} than {path}; --fps {same:g} keeps it")
    return given


def _used(count: int, stage: StageSpec, wanted: VideoShape, wish: Wish) -> slice:
    """Leave out frames that the stage has no place for, or that would make more than was asked for."""
    if _makes_more(stage) and wish.num_frames is not None:
        fitting = (each for each in range(count, 0, -1) if _made(stage, each) <= wish.num_frames)
        return slice(0, next(fitting, 1))
    return slice(max(count - wanted.num_frames, 0), None)


def _made(stage: StageSpec, count: int) -> int:
    return stage.shape(VideoShape(num_frames=count)).num_frames


def _makes_more(stage: StageSpec) -> bool:
    """Tell whether how many frames are made follows from how many are given."""
    return _made(stage, 1) != _made(stage, 2)


def _keeps_rate(stage: StageSpec) -> bool:
    """Tell whether the frame rate is that of the given video."""
    return len({stage.shape(VideoShape(fps=fps)).fps for fps in (7.0, 9.0)}) > 1


def _note_size(path: Path, picture: Picture, wanted: VideoShape, on_note: Callable[[str], None]) -> None:
    height, width, _ = picture.shape
    if (height, width) != (wanted.height, wanted.width):
        same = height * wanted.width == width * wanted.height
        change = "resized" if same else "cropped and resized"
        on_note(f"note: {path} has {height}×{width} pixels; {change} to {wanted.height}×{wanted.width}")


def rate_path(spec: StageSpec) -> str | None:
    """Return the place in a spec that says how fast its videos play; None if that follows from the given video."""
    for name, part in reversed([*spec.parts().items()]):
        if not _keeps_rate(part):
            return f"{name}.video.fps" if name else "video.fps"
    return None


__all__ = ["GivenFiles", "Wish", "rate_path", "read_given"]
