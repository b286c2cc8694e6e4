"""One process at a time in the folder of a run."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lavie.errors import LavieError

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]


class BusyError(LavieError):
    """A folder in which another process is at work."""


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold the folder's lock file (except on Windows); the system lets go of it however this process ends.

    Raises:
        BusyError: if another process holds it, with its number.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a+") as file:
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            holder = file.read(20).strip() or "another"
            raise BusyError(f"{folder}: process {holder} is training there. Stop it, or use another folder") from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
