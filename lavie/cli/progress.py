"""The progress bar of `lavie generate`."""

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from lavie.cli.app import say

if TYPE_CHECKING:
    from rich.progress import Progress

    from lavie.samplers.base import Step


class Display:
    """A bar on stderr over the steps of all videos; nothing where stderr is no terminal, or nothing is to do."""

    def __init__(self, num_videos: int, steps_per_video: int) -> None:
        self._progress = _bar() if num_videos and sys.stderr.isatty() else None
        self._steps = steps_per_video
        self._num_videos = num_videos
        self._done = 0
        self._start = 0.0

    def __enter__(self) -> Self:
        if self._progress is not None:
            self._progress.add_task(f"video 1 of {self._num_videos}", total=self._num_videos * self._steps, rate="")
            self._progress.start()
            self._start = time.perf_counter()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._progress is not None:
            self._progress.stop()

    def on_step(self, stage: str, step: "Step") -> None:
        """Move on by a step of a stage."""
        self._done += 1
        if self._progress is not None:
            video = min(self._done // self._steps + 1, self._num_videos)
            rate = f"{self._done / (time.perf_counter() - self._start):.1f} steps/s"
            text = f"video {video} of {self._num_videos}, {stage}"
            self._progress.update(self._progress.task_ids[0], completed=self._done, description=text, rate=rate)

    def say(self, text: str) -> None:
        """Write a line of result to stdout, out of the bar's way."""
        if self._progress is not None:
            self._progress.stop()
        say(text)
        sys.stdout.flush()
        if self._progress is not None:
            self._progress.start()


def _bar() -> "Progress":
    from rich import progress
    from rich.console import Console

    return progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn("{task.fields[rate]}"),
        progress.TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )


__all__ = ["Display"]
