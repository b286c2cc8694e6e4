"""The progress bar of `lavie generate`."""

import sys
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Self

from lavie.cli.app import complain, say

if TYPE_CHECKING:
    from rich.progress import Progress

    from lavie.samplers.base import Step
    from lavie.stages import Stage

WRITING = "writing"


def units_of(stage: "Stage", num_frames: int) -> dict[str, int]:
    """Return what a video takes: the steps of each stage by name, then the frames that are decoded and written."""
    return {**{name or "sampling": part.num_steps() for name, part in stage.parts().items()}, WRITING: num_frames}


class Display:
    """A bar on stderr for the stage under way; nothing where stderr is no terminal, or nothing is to do."""

    def __init__(self, num_videos: int, units: Mapping[str, int]) -> None:
        self._progress = _bar() if num_videos and sys.stderr.isatty() else None
        self._units = dict(units)
        self._left = num_videos
        self._num_videos = num_videos
        self._phase = ""
        self._done = 0
        self._begun = self._since = 0.0
        self._seconds: dict[str, float] = {}

    def __enter__(self) -> Self:
        self._since = time.perf_counter()
        if self._progress is not None:
            self._progress.add_task(f"video 1 of {self._num_videos}", total=None, rate="", left="")
            self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._progress is not None:
            self._progress.stop()

    def on_step(self, stage: str, step: "Step") -> None:
        """Move on by a step of a stage."""
        self._advance(stage if stage in self._units else next(iter(self._units)))

    def on_frame(self) -> None:
        """Move on by a frame that has been decoded and written."""
        self._advance(WRITING)

    def say(self, text: str) -> None:
        """Write a line of result to stdout, out of the bar's way; the next step belongs to the next video."""
        if self._phase:
            self._phase, self._left = "", self._left - 1
        self._above(say, text)
        sys.stdout.flush()

    def note(self, text: str) -> None:
        """Write a line to stderr, out of the bar's way."""
        self._above(complain, text)

    def _above(self, write: Callable[[str], None], text: str) -> None:
        if self._progress is not None:
            self._progress.stop()
        write(text)
        if self._progress is not None:
            self._progress.start()

    def _advance(self, phase: str) -> None:
        now = time.perf_counter()
        if phase != self._phase:
            self._phase, self._done, self._begun = phase, 0, self._since
        self._done += 1
        self._since = now
        self._seconds[phase] = (now - self._begun) / self._done
        if self._progress is not None:
            self._progress.update(
                self._progress.task_ids[0],
                description=f"video {self._num_videos - self._left + 1} of {self._num_videos}, {phase}",
                completed=self._done,
                total=max(self._units[phase], self._done),
                rate=_rate(1 / max(self._seconds[phase], 1e-9), "frame" if phase == WRITING else "step"),
                left=self._time_left(),
            )
            if self._done == self._units[phase]:  # a quick one would be over before it was ever shown
                self._progress.refresh()

    def _time_left(self) -> str:
        """Say how long it will take from here: the whole run, once all has been done once, or else this stage."""
        names = list(self._units)
        here = max(self._units[self._phase] - self._done, 0) * self._seconds[self._phase]
        if any(name not in self._seconds for name in names):
            return f"{_clock(here)} left in {self._phase}" if len(names) > 1 else f"{_clock(here)} left"
        after = sum(self._units[name] * self._seconds[name] for name in names[names.index(self._phase) + 1 :])
        whole = sum(self._units[name] * self._seconds[name] for name in names)
        return f"{_clock(here + after + (self._left - 1) * whole)} left"


def _rate(per_second: float, unit: str) -> str:
    return f"{per_second:.1f} {unit}s/s" if per_second >= 1 else f"{1 / per_second:.1f} s/{unit}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _bar() -> "Progress":
    from rich import progress
    from rich.console import Console

    return progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(bar_width=20),
        progress.MofNCompleteColumn(),
        progress.TextColumn("{task.fields[rate]}"),
        progress.TextColumn("{task.fields[left]}"),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )


__all__ = ["WRITING", "Display", "units_of"]
