"""Single pictures: read with care, and brought to a size."""

import warnings
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from lavie.errors import VideoError
from lavie.video.files import naming
from lavie.video.pixels import Picture

MAX_PIXELS = 2**26
"""Most pixels of one picture."""
_LIMIT = f"a picture may have {MAX_PIXELS:,} in all; shrink it first"
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
_DEEP = {"I", "I;16", "I;16L", "I;16B", "I;16N", "F"}
"""Pillow's modes of more than eight bits per channel: it would cut them off, not scale them."""


def read_image(path: Path) -> Picture:
    """Read one picture, the right way up; what is transparent becomes black.

    Raises:
        VideoError: naming the path, if it is no picture, is damaged, or has more than MAX_PIXELS.
    """
    if not path.is_file():
        raise VideoError(f"{path}: {'not a file' if path.exists() else 'no such file'}")
    with naming(path, "read"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own limit of size comes after ours
        try:
            with Image.open(path, formats=_FORMATS) as image:
                return _decoded(path, image)
        except UnidentifiedImageError:
            raise VideoError(f"{path}: no picture that can be read; use PNG, JPEG or WebP") from None
        except Image.DecompressionBombError:
            raise VideoError(f"{path}: too many pixels; {_LIMIT}") from None
        except (SyntaxError, EOFError, KeyError, IndexError, TypeError) as error:
            raise VideoError(f"{path}: cannot be read: {error}") from error


def _decoded(path: Path, image: Image.Image) -> Picture:
    if image.width * image.height > MAX_PIXELS:
        raise VideoError(f"{path}: {image.height}×{image.width} pixels; {_LIMIT}")
    if image.mode in _DEEP:
        raise VideoError(f"{path}: more than 8 bits per channel ({image.mode}); save it with 8")
    upright = ImageOps.exif_transpose(image)
    if upright.has_transparency_data:
        clear = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", clear.size, (0, 0, 0, 255)), clear)
    return np.asarray(upright.convert("RGB"))


def fit(picture: Picture, height: int, width: int) -> UInt8[np.ndarray, "{height} {width} 3"]:
    """Bring a picture to a size: what is too long on one axis is cut off evenly at both ends, the rest resized.

    Smaller, each pixel is the mean of the area that it covers, as in training; larger, it is interpolated (bicubic).
    """
    if picture.shape[:2] == (height, width):
        return picture
    shrinks = picture.shape[0] >= height and picture.shape[1] >= width
    filter = Image.Resampling.BOX if shrinks else Image.Resampling.BICUBIC
    return np.asarray(ImageOps.fit(Image.fromarray(picture), (width, height), filter))


__all__ = ["fit", "read_image"]
