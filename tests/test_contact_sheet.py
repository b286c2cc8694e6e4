"""Contact sheets show every video, at a size one can see."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lavie.contact_sheet import MAX_ROWS, Row, draw_contact_sheet, write_contact_sheet
from lavie.errors import VideoError


def grey(level: int, num_frames: int, height: int, width: int) -> np.ndarray:
    return np.full((num_frames, height, width, 3), level, np.uint8)


def test_frames_are_spread_from_first_to_last() -> None:
    frames = np.arange(16, dtype=np.uint8)[:, None, None, None].repeat(4, 1).repeat(4, 2).repeat(3, 3)
    row = Row.of(frames, "ramp", columns=4, side=4)
    assert row.frames[:, 0, 0, 0].tolist() == [0, 5, 10, 15]


def test_small_videos_are_enlarged_by_a_whole_factor_and_large_ones_shrunk() -> None:
    assert Row.of(grey(0, 9, 48, 32), "", side=128).frames.shape == (8, 192, 128, 3)
    assert Row.of(grey(0, 2, 320, 512), "", side=128).frames.shape == (2, 128, 205, 3)


def test_every_row_is_drawn_whatever_its_size() -> None:
    levels = {60: (1, 16, 16), 120: (5, 64, 128), 200: (16, 300, 200)}
    sheet = np.asarray(draw_contact_sheet([Row.of(grey(level, *size), "words") for level, size in levels.items()]))
    for level, size in levels.items():
        expected = Row.of(grey(level, *size), "").frames
        assert (sheet == level).all(axis=2).sum() >= expected.shape[0] * expected.shape[1] * expected.shape[2]


def test_the_caption_is_written_and_cut_to_the_sheet() -> None:
    blank = np.asarray(draw_contact_sheet([Row.of(grey(250, 8, 32, 32), "")]))
    short = np.asarray(draw_contact_sheet([Row.of(grey(250, 8, 32, 32), "a red circle")]))
    long = np.asarray(draw_contact_sheet([Row.of(grey(250, 8, 32, 32), "\u202e\U0001f600\n words " * 2000)]))
    assert blank.shape == short.shape == long.shape
    assert (blank == 250).all()
    assert (short != 250).any()
    assert (long[:, -6:] == 250).all()


def test_a_sheet_is_written_as_png_and_replaces_an_older_one(tmp_path: Path) -> None:
    path = tmp_path / "sheet.png"
    path.write_text("old")
    write_contact_sheet(path, [Row.of(grey(9, 2, 16, 16), "a")])
    with Image.open(path) as image:
        assert image.format == "PNG"
    assert os.listdir(tmp_path) == ["sheet.png"]


def test_what_cannot_be_drawn_or_written_is_refused(tmp_path: Path) -> None:
    row = Row.of(grey(9, 2, 16, 16), "a")
    with pytest.raises(VideoError, match=f"1 to {MAX_ROWS} videos, got 0"):
        draw_contact_sheet([])
    with pytest.raises(VideoError, match=r"none/sheet\.png: cannot be written: No such file"):
        write_contact_sheet(tmp_path / "none" / "sheet.png", [row])
