"""Names and limits that reading and writing share, and errors that name the path."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av

from lavie.errors import LavieError, VideoError

MAX_PIXELS = 2**32
"""Most pixels, over all frames, that a file may decode to (12 GiB)."""
FOLDER = ".frames"
"""Ending of the folders of numbered pictures that are written."""
READABLE_PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}
"""Endings of what counts as a picture in a folder that is read."""


def url(path: Path) -> str:
    """Name a file so that no part of the path is taken for a protocol."""
    return f"file:{path.absolute()}"


@contextmanager
def naming(path: Path, verb: str) -> Iterator[None]:
    """Turn what the system and the codecs raise into an error that names the path."""
    try:
        yield
    except LavieError:
        raise
    except (OSError, av.FFmpegError, ValueError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise VideoError(f"{path}: cannot be {verb}: {reason}") from error


def check_size(path: Path, pixels: int, max_pixels: int) -> None:
    """Refuse a file that decodes to too many pixels.

    Raises:
        VideoError: naming the path.
    """
    if pixels > max_pixels:
        raise VideoError(f"{path}: more than {max_pixels:,} pixels in all; cut or shrink it first")


__all__ = ["FOLDER", "MAX_PIXELS", "READABLE_PICTURES", "check_size", "naming", "url"]
