"""Video files, written frame by frame, whole or not at all."""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path

from lavie.atomic import replacing, replacing_folder
from lavie.errors import VideoError
from lavie.video import gif, png, yuv
from lavie.video.files import FOLDER, naming
from lavie.video.pixels import Picture

ENDINGS = {"mp4": ".mp4", "webm": ".webm", "gif": ".gif", "png": FOLDER}
"""What can be written, and the ending of the name by which it is known."""
_KNOWN = "use .mp4, .webm, .gif, or .frames for a folder of PNG files"


def check_format(path: Path, height: int, width: int, fps: int | float) -> None:
    """Refuse a video that the format named by the ending of `path` cannot hold.

    Raises:
        VideoError: naming the path, the limit and what to do.
    """
    ending = path.suffix.lower()
    if ending not in ENDINGS.values():
        raise VideoError(f"{path}: cannot write {path.suffix or 'a file without an ending'}; {_KNOWN}")
    if not 0 < fps <= (50 if ending == ".gif" else 1000):
        limit = "50, the fastest that browsers play a GIF" if ending == ".gif" else "1000"
        raise VideoError(f"{path}: {fps:g} frames per second; must be above 0 and at most {limit}")
    if ending == ".mp4" and (height % 2 or width % 2):
        remedy = "crop, write it at twice the size, or use .webm or .gif"
        raise VideoError(f"{path}: mp4 needs an even height and width, got {height}×{width}; {remedy}")
    if max(height, width) > 16384:
        raise VideoError(f"{path}: {height}×{width} pixels; the longest side may have 16384")


def write_video(path: Path, pictures: Iterable[Picture], fps: int | float, comment: str = "") -> None:
    """Write a video as H.264 (.mp4), VP9 (.webm), endless GIF (.gif) or folder of PNG files (.frames).

    Pictures are taken one by one, when the file is ready for the next; a whole video is an iterable of them too.
    mp4 and WebM play in browsers: yuv420p, BT.709, index first. `comment` is kept inside.

    Raises:
        VideoError: naming the path, if the format cannot hold the video or the disk does not take it.
    """
    rest = iter(pictures)
    first = next(rest, None)
    if first is None:
        check_format(path, 2, 2, fps)
        raise VideoError(f"{path}: a video without frames cannot be written")
    height, width, _ = first.shape
    check_format(path, height, width, fps)
    rate = Fraction(fps).limit_denominator(1001)
    with naming(path, "written"):
        _write(path, _of_one_size(path, chain([first], rest), first.shape), (height, width), rate, comment)


def _write(path: Path, pictures: Iterator[Picture], size: tuple[int, int], rate: Fraction, comment: str) -> None:
    ending = path.suffix.lower()
    if ending == FOLDER:
        png.check_replaceable(path)
        with replacing_folder(path) as folder:
            png.encode(folder, pictures, rate, comment)
        return
    with replacing(path) as file:
        if ending == ".gif":
            gif.encode(file, pictures, size, rate, comment)
        else:
            yuv.encode(file, pictures, size, rate, comment, yuv.MP4 if ending == ".mp4" else yuv.WEBM)


def _of_one_size(path: Path, pictures: Iterable[Picture], shape: tuple[int, ...]) -> Iterator[Picture]:
    for picture in pictures:
        if picture.shape != shape:
            raise VideoError(f"{path}: frames of several sizes cannot be written")
        yield picture


__all__ = ["ENDINGS", "check_format", "write_video"]
