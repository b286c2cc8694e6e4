"""Video files and folders of pictures, read picture by picture."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import Interpolation

from lavie.errors import VideoError
from lavie.video import gif, png
from lavie.video.files import MAX_PIXELS, check_size, naming, url
from lavie.video.pixels import Frames, Picture

READABLE = "mov,mp4,m4a,3gp,3g2,mj2,gif,matroska,webm,avi,mpeg,mpegts"
Keep = Callable[[int, Picture], Picture | None]
"""`(number of the frame, picture) -> what is kept of it`; nothing where it is None."""


@dataclass(frozen=True)
class VideoFile:
    """What a video file holds."""

    frames: Frames
    fps: int | float
    comment: str = ""


def read_video(path: Path, max_pixels: int = MAX_PIXELS, keep: Keep | None = None) -> VideoFile:
    """Read a video file or a folder of numbered pictures; with `keep`, only what that returns stays in memory.

    A folder that does not say otherwise plays 8 frames per second.

    Raises:
        VideoError: naming the path, if it is no video, is damaged, or decodes to more than `max_pixels`.
    """
    with naming(path, "read"):
        if path.is_dir():
            frames = _kept(png.read(path, max_pixels), keep)
            return VideoFile(_stacked(path, frames), *png.read_text(path))
        with _opened(path) as container:
            ends: list[Fraction] = []
            frames = _kept(_decoded(path, container, max_pixels, ends), keep)
            stream = container.streams.video[0]
            fps = float(stream.guessed_rate or stream.average_rate or 1)
            if container.format.name == "gif" and len(ends) > 1:
                fps = gif.simplest_rate(len(ends) - 1, ends[-1] - ends[0])
            return VideoFile(_stacked(path, frames), fps, _comment(path, container))


def _kept(pictures: Iterator[Picture], keep: Keep | None) -> list[Picture]:
    if keep is None:
        return list(pictures)
    kept = (keep(number, picture) for number, picture in enumerate(pictures))
    return [picture for picture in kept if picture is not None]


def _stacked(path: Path, frames: list[Picture]) -> Frames:
    if not frames:
        raise VideoError(f"{path}: no frames in it")
    return np.stack(frames)


def _decoded(
    path: Path, container: "av.container.InputContainer", max_pixels: int, ends: list[Fraction]
) -> Iterator[Picture]:
    """Yield the pictures of the first video stream, and write down when each is shown, in seconds."""
    if not container.streams.video:
        raise VideoError(f"{path}: no video in it")
    stream, shape, stored = container.streams.video[0], None, 0
    for packet in container.demux(stream):
        stored += packet.size > 0
        for frame in packet.decode():
            check_size(path, (len(ends) + 1) * frame.width * frame.height, max_pixels)
            picture = frame.to_ndarray(format="rgb24", interpolation=Interpolation.AREA)
            shape = shape or picture.shape
            if picture.shape != shape:
                raise VideoError(f"{path}: frames of several sizes")
            ends.append((frame.pts or 0) * Fraction(frame.time_base or 0))
            yield picture
    if stream.frames and stream.frames != stored:  # fewer may be shown: a cut leaves the rest of a file as it is
        raise VideoError(f"{path}: damaged: {stored} frames where the file announces {stream.frames}")


def read_comment(path: Path) -> str:
    """Return the comment kept in a video file's container or a folder's first picture, or nothing.

    Raises:
        VideoError: naming the path, if it is no video.
    """
    with naming(path, "read"):
        if path.is_dir():
            return png.read_text(path)[1]
        with _opened(path) as container:
            return _comment(path, container)


def _comment(path: Path, container: "av.container.InputContainer") -> str:
    names = ("comment", "COMMENT")  # the second in WebM
    found = next((str(container.metadata[name]) for name in names if name in container.metadata), "")
    return found or (gif.read_comment(path) if container.format.name == "gif" else "")


@contextmanager
def _opened(path: Path) -> Iterator["av.container.InputContainer"]:
    """Open a local file of a known container format: no network, no playlists, no devices."""
    if not path.is_file():
        raise VideoError(f"{path}: {'not a file' if path.exists() else 'no such file'}")
    check_whole(path)
    options = {"protocol_whitelist": "file", "format_whitelist": READABLE}
    with av.open(url(path), options=options) as container:
        yield container


def check_whole(path: Path) -> None:
    """Refuse a Matroska or WebM file that ends before the end it announces: its frames are counted nowhere.

    Raises:
        VideoError: naming the path.
    """
    with path.open("rb") as file:
        head = file.read(4096)
    if not head.startswith(b"\x1a\x45\xdf\xa3"):
        return
    start = head.find(b"\x18\x53\x80\x67") + 4  # the Segment, which holds all the rest (RFC 9559, section 5.1)
    if start < 4 or len(head) < start + 8 or not head[start]:
        raise VideoError(f"{path}: damaged: no beginning of a Matroska segment")
    length = 9 - head[start].bit_length()  # of a number as EBML writes it (RFC 8794, section 4)
    size = int.from_bytes(head[start : start + length]) & (2 ** (7 * length) - 1)
    is_known = size != 2 ** (7 * length) - 1
    if is_known and start + length + size > path.stat().st_size:
        raise VideoError(f"{path}: damaged: it ends before the end that it announces")


__all__ = ["VideoFile", "read_comment", "read_video"]
