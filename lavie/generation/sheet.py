"""The contact sheet of a run: a row of frames for each video."""

from collections.abc import Sequence
from pathlib import Path
from typing import final

import numpy as np

from lavie.contact_sheet import MAX_ROWS, Row, chosen_frames, write_contact_sheet
from lavie.generation.outputs import Job
from lavie.generation.prompts import hash_of, shorten
from lavie.video import Picture, read_video


@final
class Sheet:
    """A contact sheet of a run, a row per video, as far as one sheet reaches.

    Of each video only the frames that the sheet shows are in memory.
    """

    def __init__(self, jobs: Sequence[Job], folder: Path, num_frames: int) -> None:
        names = "\0".join(job.path.name for job in jobs)
        self.path = folder / f"contact-sheet-{hash_of(names)}.png"
        self._shown = frozenset(chosen_frames(num_frames))
        self._taken: list[Picture] = []
        self._rows: list[Row] = []

    def on_frame(self, number: int, picture: Picture) -> None:
        """Take a frame of the video that is being written, if the sheet shows it."""
        if number in self._shown and len(self._rows) < MAX_ROWS:
            self._taken.append(picture)

    def add(self, job: Job) -> None:
        """Add one video, of the frames taken; one that an earlier run has made is read from its file."""
        if len(self._rows) < MAX_ROWS:
            taken = np.stack(self._taken) if self._taken else read_video(job.path, keep=self._kept).frames
            prompt = shorten(job.request.prompt, 100)
            self._rows.append(Row.of(taken, f"{prompt}  seed {job.request.seed}"))
        self._taken = []

    def _kept(self, number: int, picture: Picture) -> Picture | None:
        return picture if number in self._shown else None

    def write(self) -> Path:
        """Write the sheet.

        Raises:
            VideoError: naming the path, if it cannot be written.
        """
        write_contact_sheet(self.path, self._rows)
        return self.path


__all__ = ["Sheet"]
