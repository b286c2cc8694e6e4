"""Stop signals: the first one is remembered until the next step boundary, the second one ends the process."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

from lavie.errors import LavieError


class TrainingStoppedError(LavieError):
    """A run that was asked to stop, and has been saved."""

    def __init__(self, message: str, signum: int) -> None:
        super().__init__(message)
        self.signum = signum
        """The signal; the exit code of a command line is 128 more."""


class Interrupts:
    """While entered, remembers SIGINT and SIGTERM in `signum` instead of dying at once."""

    def __init__(self) -> None:
        self.signum = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            return self  # only the main thread may set handlers
        for signum in (signal.SIGINT, signal.SIGTERM):
            self._before[signum] = signal.signal(signum, self._remember)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def _remember(self, signum: int, frame: FrameType | None) -> None:
        if self.signum:
            raise SystemExit(128 + signum)
        self.signum = signum
