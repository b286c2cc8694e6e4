"""Folders of numbered PNG files, one for each frame: without loss, and open to every other program."""

import re
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from lavie.errors import VideoError
from lavie.video.files import READABLE_PICTURES, check_size
from lavie.video.images import read_image
from lavie.video.pixels import Picture

DEFAULT_RATE = 8.0
"""Frames per second of a folder that does not say."""
_OURS = re.compile(r"\d{5,}\.png")


def encode(folder: Path, pictures: Iterable[Picture], rate: Fraction, comment: str) -> None:
    """Write pictures into an empty folder; the first one keeps the frame rate and the comment."""
    for index, picture in enumerate(pictures):
        text = PngInfo()
        if index == 0:
            text.add_text("Frames per second", str(rate))
            text.add_text("Comment", comment)
        Image.fromarray(picture).save(folder / f"{index:05d}.png", format="PNG", pnginfo=text)


def check_replaceable(folder: Path) -> None:
    """Refuse to replace a folder that holds anything but what `encode` writes.

    Raises:
        VideoError: naming the folder and what is in it.
    """
    if folder.is_dir() and (strange := [path.name for path in folder.iterdir() if not _OURS.fullmatch(path.name)]):
        raise VideoError(
            f"{folder}: cannot be replaced: {strange[0]} in it is no frame of a video; choose another name"
        )


def read(folder: Path, max_pixels: int) -> Iterator[Picture]:
    """Yield the pictures of a folder in the order of the numbers in their names.

    Raises:
        VideoError: naming the folder or file, if there are none or they are damaged, of several sizes, or too large.
    """
    shape, pixels = None, 0
    for path in names(folder):
        picture = read_image(path)
        shape = shape or picture.shape
        if picture.shape != shape:
            sizes = " and ".join(f"{height}×{width}" for height, width, _ in (shape, picture.shape))
            raise VideoError(f"{path}: frames of several sizes: {sizes}")
        pixels += shape[0] * shape[1]
        check_size(folder, pixels, max_pixels)
        yield picture


def names(folder: Path) -> list[Path]:
    """Return the pictures in a folder in the order of the numbers in their names.

    Raises:
        VideoError: naming the folder, if there are none.
    """
    paths = [path for path in folder.iterdir() if path.suffix.lower() in READABLE_PICTURES and path.is_file()]
    if not paths:
        raise VideoError(f"{folder}: no pictures in this folder; it takes numbered files such as 00000.png")
    return sorted(paths, key=lambda path: ([int(number) for number in re.findall(r"\d+", path.stem)], path.name))


def read_text(folder: Path) -> tuple[float, str]:
    """Return the frame rate and the comment that the first picture of a folder keeps."""
    with Image.open(names(folder)[0]) as image:
        text = {key: value for key, value in image.info.items() if isinstance(value, str)}
    try:
        rate = float(Fraction(text.get("Frames per second", "")))
    except (ValueError, ZeroDivisionError, OverflowError):
        rate = 0.0
    return rate if 0 < rate <= 1000 else DEFAULT_RATE, text.get("Comment", "")


__all__ = ["DEFAULT_RATE", "check_replaceable", "encode", "read", "read_text"]
