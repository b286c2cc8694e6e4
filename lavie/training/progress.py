"""What a run shows while it goes on: a bar on a terminal, else a plain line now and then."""

import logging
import sys
import time
from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.progress import Progress

logger = logging.getLogger(__name__)
SECONDS_BETWEEN_LINES = 30.0
WINDOW = 100
"""Steps that the rate is taken over."""


class PhaseProgress:
    """Progress of one phase."""

    def __init__(self, name: str, done: int, num_steps: int) -> None:
        self.name = name
        self.num_steps = num_steps
        self._recent = deque([(time.monotonic(), done)], maxlen=WINDOW)
        self._last_line = time.monotonic()
        self._bar = _bar() if sys.stderr.isatty() else None
        if self._bar is not None:
            self._task = self._bar.add_task(name, total=num_steps, completed=done, text="")

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, done: int, loss: float, extra: str) -> None:
        """Show that `done` steps are done."""
        now = time.monotonic()
        self._recent.append((now, done))
        then, before = self._recent[0]
        rate = (done - before) / max(now - then, 1e-9)
        text = f"loss {loss:.4f}  {rate:.2f} it/s  {extra}".rstrip()
        if self._bar is not None:
            self._bar.update(self._task, completed=done, text=text)
        elif now - self._last_line >= SECONDS_BETWEEN_LINES or done == self.num_steps:
            self._last_line = now
            left = (self.num_steps - done) / max(rate, 1e-9)
            logger.info("%s %d/%d  %s  %s left", self.name, done, self.num_steps, text, _clock(left))


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"


def _bar() -> "Progress":
    from rich import console, progress

    return progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn("{task.fields[text]}"),
        progress.TimeElapsedColumn(),
        progress.TimeRemainingColumn(),
        console=console.Console(stderr=True),
    )
