"""Contact sheets: one picture of many videos, a row each, frames from left to right under a caption."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lavie.atomic import replacing
from lavie.errors import VideoError
from lavie.video import Frames, enlarge

MAX_ROWS = 100
"""Most videos on one sheet."""
COLUMNS = 8
"""Frames in a row."""
_GAP = 6
_TEXT = 18
_PAPER, _INK = (250, 250, 250), (30, 30, 30)


def chosen_frames(count: int, columns: int = COLUMNS) -> list[int]:
    """Return which of `count` frames a row shows: `columns` of them, spread from the first to the last."""
    return np.linspace(0, count - 1, min(columns, count)).round().astype(int).tolist()


@dataclass(frozen=True, eq=False)
class Row:
    """One video on a sheet: a few of its frames, and what is written above them."""

    frames: Frames
    caption: str

    @classmethod
    def of(cls, frames: Frames, caption: str, columns: int = COLUMNS, side: int = 128) -> "Row":
        """Take `columns` frames spread from the first to the last, with the shorter side near `side` pixels.

        Small videos are enlarged by a whole factor so that their pixels stay sharp; large ones are shrunk.
        """
        count, height, width, _ = frames.shape
        chosen = frames[chosen_frames(count, columns)]
        shorter = min(height, width)
        if shorter <= side:
            return cls(enlarge(chosen, max(1, round(side / shorter))), caption)
        size = (max(1, round(width * side / shorter)), max(1, round(height * side / shorter)))
        pictures = [Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS) for frame in chosen]
        return cls(np.stack([np.asarray(picture) for picture in pictures]), caption)


def draw_contact_sheet(rows: Sequence[Row]) -> Image.Image:
    """Draw a sheet of one or many videos, however their sizes and numbers of frames differ.

    Raises:
        VideoError: if there is no row, or more than MAX_ROWS.
    """
    if not 1 <= len(rows) <= MAX_ROWS:
        raise VideoError(f"a contact sheet holds 1 to {MAX_ROWS} videos, got {len(rows)}")
    width = max(_GAP + sum(_GAP + frame.shape[1] for frame in row.frames) for row in rows)
    height = _GAP + sum(_TEXT + row.frames.shape[1] + _GAP for row in rows)
    sheet = Image.new("RGB", (width, height), _PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    y = _GAP
    for row in rows:
        pen.text((_GAP, y), _fitted(row.caption, font, width - 2 * _GAP), _INK, font)
        y += _TEXT
        for index, frame in enumerate(row.frames):
            sheet.paste(Image.fromarray(frame), (_GAP + index * (_GAP + frame.shape[1]), y))
        y += row.frames.shape[1] + _GAP
    return sheet


def _fitted(caption: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """Cut a caption to a width in pixels; what cannot be printed becomes a question mark."""
    text = "".join(character if character.isprintable() else "?" for character in caption[:500])
    if font.getlength(text) <= width:
        return text
    length = math.floor(len(text) * width / font.getlength(text))
    while length and font.getlength(text[:length] + "...") > width:
        length -= 1
    return text[:length] + "..."


def write_contact_sheet(path: Path, rows: Sequence[Row]) -> None:
    """Write a sheet as PNG, whole or not at all.

    Raises:
        VideoError: naming the path, if it cannot be written.
    """
    sheet = draw_contact_sheet(rows)
    try:
        with replacing(path) as temporary:
            sheet.save(temporary, format="PNG", optimize=True)
    except OSError as error:
        raise VideoError(f"{path}: cannot be written: {error.strerror or error}") from error


__all__ = ["MAX_ROWS", "Row", "chosen_frames", "draw_contact_sheet", "write_contact_sheet"]
