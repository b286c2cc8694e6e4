"""Pictures are read the right way up and brought to a size; what is no picture is refused by name."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lavie.errors import VideoError
from lavie.video import fit, read_image


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.bmp", "a.tiff", "a.dat"])
def test_pictures_without_loss_are_read_exactly_whatever_their_name(tmp_path: Path, name: str) -> None:
    kind = {"a.webp": "WEBP", "a.bmp": "BMP", "a.tiff": "TIFF"}.get(name, "PNG")
    Image.fromarray(noise(9, 7)).save(tmp_path / name, format=kind, lossless=True)
    assert (read_image(tmp_path / name) == noise(9, 7)).all()


def test_photographs_are_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn by a quarter, clockwise
    Image.fromarray(noise(8, 16)).save(tmp_path / "a.jpg", exif=exif, quality=100, subsampling=0)
    picture = read_image(tmp_path / "a.jpg")
    assert picture.shape == (16, 8, 3)
    assert np.abs(picture.astype(int) - np.rot90(noise(8, 16), -1)).mean() < 4


def test_grey_palette_and_transparent_pictures_become_colours(tmp_path: Path) -> None:
    Image.fromarray(noise(4, 4)[..., 0]).save(tmp_path / "grey.png")
    assert (read_image(tmp_path / "grey.png") == noise(4, 4)[..., :1]).all()
    Image.fromarray(np.full((4, 4, 3), 200, np.uint8)).quantize(2).save(tmp_path / "palette.png")
    assert (read_image(tmp_path / "palette.png") == 200).all()
    clear = np.dstack([np.full((4, 4, 3), 200, np.uint8), np.eye(4, dtype=np.uint8) * 255])
    Image.fromarray(clear).save(tmp_path / "clear.png")
    assert (read_image(tmp_path / "clear.png")[..., 0] == np.eye(4) * 200).all()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no picture that can be read; use PNG, JPEG or WebP"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 40, "no picture that can be read|cannot be read"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no picture that can be read"),
        (b"not a picture at all", "no picture that can be read"),
    ],
)
def test_what_is_no_picture_is_refused_by_name(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(VideoError, match=rf"a\.png: ({message})"):
        read_image(tmp_path / "a.png")


def beginning_of_png(width: int, height: int) -> bytes:
    """Return a PNG file that says how large it is, and nothing more."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">II", zlib.crc32(header), 0) + b"IDAT"


def test_missing_deep_and_huge_pictures_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"none\.png: no such file"):
        read_image(tmp_path / "none.png")
    with pytest.raises(VideoError, match="not a file"):
        read_image(tmp_path)
    Image.fromarray(np.zeros((2, 2), np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(VideoError, match=r"deep\.png: more than 8 bits per channel"):
        read_image(tmp_path / "deep.png")
    for width in (2**14 + 1, 2**16, 2**31 - 1):  # the second is what Pillow itself takes for an attack
        (tmp_path / "huge.png").write_bytes(beginning_of_png(width, 4097))
        with pytest.raises(VideoError, match=r"huge\.png: .* pixels; .* 67,108,864 in all; shrink it first"):
            read_image(tmp_path / "huge.png")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"])
def test_damaged_pictures_are_refused_by_name_or_read_in_their_size(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a"
    Image.fromarray(noise(16, 16)).save(path, format=kind)
    data, random = path.read_bytes(), np.random.default_rng(0)
    for _ in range(80):
        damaged = bytearray(data[: random.integers(0, len(data))] if random.random() < 0.5 else data)
        for _ in range(4 if damaged else 0):
            damaged[random.integers(len(damaged))] = random.integers(256)
        path.write_bytes(damaged)
        try:
            outcome = str(read_image(path).shape[2])
        except VideoError as error:
            outcome = str(error)
        assert outcome == "3" or str(path) in outcome


@settings(max_examples=40)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 20), st.integers(1, 20))
def test_a_picture_of_one_colour_keeps_it_in_every_size(height: int, width: int, tall: int, wide: int) -> None:
    fitted = fit(np.full((height, width, 3), (10, 130, 250), np.uint8), tall, wide)
    assert fitted.shape == (tall, wide, 3)
    assert (fitted == (10, 130, 250)).all()


def test_enlarged_pixels_are_made_small_again_without_loss() -> None:
    assert (fit(noise(8, 8).repeat(4, 0).repeat(4, 1), 8, 8) == noise(8, 8)).all()


def test_what_is_cut_off_is_cut_off_evenly() -> None:
    wide = np.zeros((8, 24, 3), np.uint8)
    wide[:, 8:16] = 255
    assert (fit(wide, 8, 8) == 255).all()
    assert (fit(np.swapaxes(wide, 0, 1), 8, 8) == 255).all()


def test_fine_stripes_become_grey_and_no_pattern() -> None:
    stripes = np.zeros((60, 60, 3), np.uint8)
    stripes[:, ::2] = 255
    assert np.abs(fit(stripes, 12, 12).astype(int) - 127).max() <= 26  # a pixel of five columns holds two or three
