"""Tables and pictures of a comparison (`python -m benchmarks.compare`)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from benchmarks.measuring import quartiles
from lavie.contact_sheet import Row, write_contact_sheet
from lavie.video import to_frames

CLIPS_PER_SHEET = 2
COLUMNS = 5
SIDE = 256
"""Pixels that a frame is drawn with, at most."""

Result = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Made:
    """What was made of one clip, by method, the truth first."""

    group: str
    name: str
    videos: Mapping[str, Float[Tensor, "3 f h w"]]


def tables(results: Sequence[Result], ours: str) -> str:
    """Return two Markdown tables for each group: every measure by method, and PSNR by label."""
    groups = dict.fromkeys(result["group"] for result in results)
    chosen = {group: [result for result in results if result["group"] == group] for group in groups}
    return "\n\n".join(part for group, each in chosen.items() for part in (_measures(group, each, ours), _labels(each)))


def _measures(group: str, results: Sequence[Result], ours: str) -> str:
    """Give the median and the quartiles of each method, and in how many clips it is nearer to the truth than ours."""
    head = ["method", "PSNR, dB", "SSIM", "flicker", "nearer than ours", "CPU s per clip"]
    rows = []
    for name in results[0]["methods"]:
        each = [result["methods"][name] for result in results]
        nearer = sum(result["methods"][name]["psnr"] > result["methods"][ours]["psnr"] for result in results)
        measures = [_spread([one[key] for one in each], form) for key, form in _FORMS.items()]
        tally = "" if name == ours else f"{nearer} of {len(each)}"
        rows.append([name, *measures, tally, f"{quartiles([one['cpu_seconds'] for one in each])['median']:.2g}"])
    sizes = sorted({"×".join(map(str, result["shape"])) for result in results})
    title = f"### {group}: {len(results)} clips of {', '.join(sizes)}"
    return f"{title}\n\n{_markdown(head, rows)}"


def _labels(results: Sequence[Result]) -> str:
    labels = sorted({result["label"] for result in results})
    rows = []
    for name in results[0]["methods"]:
        cells = []
        for label in labels:
            found = [result["methods"][name]["psnr"] for result in results if result["label"] == label]
            cells.append(f"{quartiles(found)['median']:.1f}")
        rows.append([name, *cells])
    counts = [f"{label} ({sum(result['label'] == label for result in results)})" for label in labels]
    return _markdown(["median PSNR, dB (clips)", *counts], rows)


_FORMS = {"psnr": ".1f", "ssim": ".3f", "flicker": ".2f"}


def _spread(values: Sequence[float], form: str) -> str:
    found = quartiles(values)
    median, low, high = (format(found[key], form) for key in ("median", "q1", "q3"))
    return f"{median} [{low}–{high}]"


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [" | ".join(cells) for cells in (head, ["---"] * len(head), *rows)]
    return "\n".join(f"| {line} |" for line in lines)


class Sheets:
    """A picture for each group: frames in a row from the middle of its first clips, a row for each method."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._rows: dict[str, list[list[Row]]] = {}

    def add(self, made: Made) -> None:
        """Show a clip, if there is room on its group's sheet.

        Raises:
            VideoError: naming the path, if it cannot be written.
        """
        clips = self._rows.setdefault(made.group, [])
        if len(clips) < CLIPS_PER_SHEET:
            clips.append([_row(video, f"{made.name} | {name}") for name, video in made.videos.items()])
            write_contact_sheet(self._folder / f"{made.group}.png", [row for rows in clips for row in rows])


def _row(video: Float[Tensor, "3 f h w"], caption: str) -> Row:
    first = max(0, video.shape[1] // 2 - COLUMNS // 2)
    return Row.of(to_frames(video[:, first : first + COLUMNS]), caption, COLUMNS, SIDE)
