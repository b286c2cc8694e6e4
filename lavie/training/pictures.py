"""Pictures of what is learned: contact sheets of clips and images, made while training goes on."""

from collections.abc import Sequence
from pathlib import Path

from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from lavie.contact_sheet import Row, write_contact_sheet
from lavie.video import to_frames

SIDE = 96
COLUMNS = 8
IMAGES_PER_ROW = 4


def draw_clips(video: Float[Tensor, "b 3 f h w"], captions: Sequence[str], path: Path) -> None:
    """Save clips, a row of frames each; images go several to a row, their captions one after the other."""
    if video.shape[2] > 1:
        rows = [Row.of(to_frames(each), caption, COLUMNS, SIDE) for each, caption in zip(video, captions, strict=True)]
    else:
        rows = []
        for start in range(0, len(video), IMAGES_PER_ROW):
            part = slice(start, start + IMAGES_PER_ROW)
            frames = to_frames(rearrange(video[part], "b c 1 h w -> c b h w"))
            rows.append(Row.of(frames, " | ".join(captions[part]), IMAGES_PER_ROW, 2 * SIDE))
    _write(path, rows)


def draw_pairs(video: Float[Tensor, "b 3 f h w"], again: Float[Tensor, "b 3 f h w"], path: Path) -> None:
    """Save the first frames of clips above their reconstructions."""
    rows = []
    for start in range(0, len(video), COLUMNS):
        for name, each in (("original", video), ("reconstruction", again)):
            frames = rearrange(each[start : start + COLUMNS, :, 0], "b c h w -> c b h w")
            rows.append(Row.of(to_frames(frames), name, COLUMNS, SIDE))
    _write(path, rows)


def _write(path: Path, rows: Sequence[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_contact_sheet(path, rows)


__all__ = ["draw_clips", "draw_pairs"]
